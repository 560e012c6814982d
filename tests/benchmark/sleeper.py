"""A contender for tests: sleeps, and writes down that it did."""

import time


def run(referee, name, diary, fails=False, mib=0):
    held, more = bytearray(mib * 2**20), True
    while more:
        time.sleep(0.001)
        with diary.open("a") as lines:
            lines.write(name)
        if fails:
            raise SystemExit(3)
        more = referee.wants_more(images=2, loss=0.5, parameters=len(held) + 1)
