"""What is compiled, and what a launcher says where nothing can be launched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from shim import ShimLauncher

import faiss_dmih
from faiss_dmih.gpu import kernels


def test_sources_are_found() -> None:
    assert "offsets" in kernels.files()
    package = Path(faiss_dmih.__file__).parent
    assert kernels.folder() in (package / "_cuda", package.parent / "cuda")


def test_headers_are_inlined_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.cu").write_text(
        '// compile: kA=1,2\n#include "sub/b.cuh"\n#include "c.cuh"\n// end of a\n'
    )
    (tmp_path / "sub" / "b.cuh").write_text('#pragma once\n#include "../c.cuh"\n// end of b\n')
    (tmp_path / "c.cuh").write_text("#pragma once\n// c\n")
    a, b, c = tmp_path / "a.cu", tmp_path / "sub" / "b.cuh", tmp_path / "c.cuh"
    assert kernels.source(str(tmp_path / "a"), {"kA": 2}).splitlines() == [
        *("#define kA 2", f'#line 1 "{a}"', "// compile: kA=1,2"),
        *(f'#line 1 "{b}"', ""),
        *(f'#line 1 "{c}"', "", "// c"),
        *(f'#line 3 "{b}"', "// end of b"),
        *(f'#line 3 "{a}"', "", "// end of a"),
    ]
    c.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"b\.cuh:2 includes .*c\.cuh, which does not exist"
    ):
        kernels.source(str(tmp_path / "a"), {"kA": 2})


def test_instantiations_are_declared(tmp_path: Path) -> None:
    path = tmp_path / "x.cu"
    for text, expected in (
        ("int x;\n// compile: kA=1\n", [{}]),
        ("// compile: kA=1,2\n", [{"kA": 1}, {"kA": 2}]),
        (
            "// compile: kA=1,2 kB=3\n// compile: kA=4 kB=-5,6\n",
            [{"kA": a, "kB": b} for a, b in ((1, 3), (2, 3), (4, -5), (4, 6))],
        ),
    ):
        path.write_text(text)
        assert kernels.instantiations(str(tmp_path / "x")) == expected
    with pytest.raises(ValueError, match=r"not declared to be compiled with {'kA': 7}, but with"):
        kernels.source(str(tmp_path / "x"), {"kA": 7})


def test_kernels_are_read_from_the_text() -> None:
    text = """
    // extern "C" __global__ void commented(int x) {}
    /* extern "C" __global__ void commented_too(int x) {} */
    extern "C" __global__ void plain(int x) {}
    extern "C" __global__ void __launch_bounds__(2 * kWarps, 3) bounded(
        int x) {}
    """
    assert kernels.kernels_in(text) == {"plain": "", "bounded": "2 * kWarps"}


def test_missing_files_and_kernels_are_named(shim_cache: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no kernel file .*nothing\.cu; there are \[.*offsets"
    ):
        kernels.source("nothing", {})
    with pytest.raises(RuntimeError, match=r"offsets\.cu has no kernel nothing: \['bucket_counts'"):
        ShimLauncher(shim_cache).kernel("offsets", "nothing", kWords=1)


def test_without_cupy_the_first_use_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['cupy'] = None\n"
        "from faiss_dmih.gpu.kernels import CudaLauncher\n"
        "launcher = CudaLauncher()\n"
        "try: launcher.kernel('offsets', 'bucket_counts', kWords=1)\n"
        "except ImportError as error: print(error)\n"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "pip install 'faiss-dmih[cuda13]'" in said


def test_importing_takes_no_cupy() -> None:
    code = "import sys, faiss_dmih.gpu.kernels; print('cupy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
