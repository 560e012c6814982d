"""Benchmarks of the study: training speed, where a step's time goes, growth, and the effect of bfloat16.

``python -m benchmarks speed profile growth`` measures and writes tables and a page to reports/benchmark/. The package
`busi` does not import anything from here.
"""
