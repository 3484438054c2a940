"""Benchmarks of pictures with text, one file each: cases read from the benchmark's own files below
a path, or drawn by ours, and the metrics that score them.

The project has none of their data: `Benchmark.where` says where each is to be had. A case's name is
the name of its picture for whoever hands in pictures of another system; each file says how it
comes about.
"""

from __future__ import annotations

from collections.abc import Mapping

from evals.benchmarks import (
    anytext,
    bizgen,
    cvtg,
    documents,
    glyphcontrol,
    lex,
    longtext,
    mario,
    oneig,
    pages,
    tiif,
    tokbench,
)
from evals.scoring import Benchmark

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        pages.BENCHMARK,
        pages.BENCHMARK_DENSE,
        pages.BENCHMARK_SIZES,
        longtext.BENCHMARK,
        longtext.BENCHMARK_ZH,
        cvtg.BENCHMARK,
        oneig.BENCHMARK,
        oneig.BENCHMARK_ZH,
        anytext.BENCHMARK,
        anytext.BENCHMARK_ZH,
        lex.BENCHMARK,
        lex.BENCHMARK_ENHANCED,
        tiif.BENCHMARK,
        tiif.BENCHMARK_LONG,
        documents.BENCHMARK,
        glyphcontrol.BENCHMARK,
        glyphcontrol.BENCHMARK_CREATIVE,
        bizgen.BENCHMARK,
        mario.BENCHMARK,
        tokbench.BENCHMARK,
        tokbench.BENCHMARK_512,
        tokbench.BENCHMARK_1024,
    )
}


def open_benchmark(name: str) -> Benchmark:
    """The benchmark of that name; raises `ValueError` with the choices for an unknown one."""
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; take one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
