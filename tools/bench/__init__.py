"""Benchmarks: each compares alternatives in one run, and keeps its numbers in build/bench/."""
