"""Contender for tests: its steps sleep and write a letter into a diary."""

import time

from benchmarks.race import Training


def prepare(letter, diary, fails=False, mib=0):
    held = bytearray(mib * 2**20)

    def step():
        time.sleep(0.001)
        with diary.open("a") as lines:
            lines.write(letter)
        if fails:
            raise SystemExit(3)
        return 0.5

    return Training(step, images=2, facts={"parameters": len(held)})
