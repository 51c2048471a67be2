"""What `import faiss_dmih` gives where there is no FAISS, another one, or no CuPy."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

import faiss_dmih

CUDA = ["GpuIDMap", "GpuIndexDMIH", "GpuReplicas", "GpuShards"]
HIDE_FAISS = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "faiss":
            raise ModuleNotFoundError(f"No module named {name!r}", name="faiss")

sys.meta_path.insert(0, Hide())
"""


def run(script: str, *, without_faiss: bool = True) -> subprocess.CompletedProcess[str]:
    prelude = HIDE_FAISS if without_faiss else ""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", prelude + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def output(script: str) -> str:
    done = run(script)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_needs_no_faiss() -> None:
    output("""
        import faiss_dmih, numpy as np
        from faiss_dmih import codes, metrics, reference
        from faiss_dmih.metrics.evaluation import evaluate
        import faiss_dmih.gpu

        xb = codes.pack(np.eye(3, 8, dtype=bool))
        assert reference.knn(xb, xb, 1)[1].ravel().tolist() == [0, 1, 2]
        assert evaluate(xb, xb, [0, 1, 2], [0, 1, 2], [8]).mean_average_precision.value == 1
        assert faiss_dmih.codes is codes and faiss_dmih.__version__
        assert "faiss_dmih._engine" not in sys.modules
        assert not {"matplotlib", "rich", "sklearn", "torch"} & {*sys.modules}
    """)


@pytest.mark.parametrize(
    "use",
    [
        "faiss_dmih.IndexDMIH",
        "faiss_dmih.stats()",
        "faiss_dmih.set_simd_level('avx2')",
        "from faiss_dmih import simd_level",
        "from faiss_dmih import *",
    ],
)
def test_what_needs_faiss_says_so(use: str) -> None:
    done = run(f"import faiss_dmih\n{use}")
    assert done.returncode == 1
    assert "ImportError: faiss_dmih is a plugin of FAISS, and there is no FAISS" in done.stderr
    assert "run pip install 'faiss-dmih[cpu]', or 'faiss-dmih[gpu]' for" in done.stderr


def test_the_command_says_so_in_one_line() -> None:
    done = run("from faiss_dmih.cli import main; main()")
    assert done.returncode == 1
    assert "run pip install 'faiss-dmih[cpu]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_names_that_are_nowhere() -> None:
    """Not everything that is missing is missing for want of FAISS."""
    output("""
        import faiss_dmih

        assert not hasattr(faiss_dmih, "IndexMIDH")
        assert not hasattr(faiss_dmih, "__wrapped__")
        assert "IndexDMIH" not in dir(faiss_dmih)
        assert "GpuIndexDMIH" in dir(faiss_dmih)
    """)


def test_an_index_in_python_without_faiss() -> None:
    """An ordinary class, with the same methods."""
    output(f"""
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import numpy as np
        from brute import Brute

        index = Brute(64)
        xb = np.random.default_rng(0).integers(0, 256, (50, 8), dtype=np.uint8)
        index.train(xb)
        index.add(xb)
        assert (index.d, index.code_size, index.ntotal, index.is_trained) == (64, 8, 50, True)
        assert index.search(xb, 1)[1].ravel().tolist() == list(range(50))
        assert index.remove_ids(np.arange(10)) == 10 and index.ntotal == 40
        assert (index.reconstruct(3) == xb[13]).all()
        index.reset()
        assert index.ntotal == 0
    """)


def test_a_faiss_that_is_not_supported(tmp_path: Path) -> None:
    """Not the same as none: it is the one that indexes would have to live in."""
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "__init__.py").write_text("__version__ = '1.13.2'")
    done = run(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport faiss_dmih", without_faiss=False
    )
    assert done.returncode == 1
    assert "found, 1.13.2 in" in done.stderr
    assert "its version is not supported" in done.stderr


def test_a_faiss_that_is_broken(tmp_path: Path) -> None:
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "__init__.py").write_text("import what_faiss_needs")
    done = run(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport faiss_dmih", without_faiss=False
    )
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'what_faiss_needs'" in done.stderr


@pytest.mark.parametrize("name", CUDA)
def test_the_cuda_engine_is_imported_when_it_is_used(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    engine = ModuleType("faiss_dmih.gpu")
    setattr(engine, name, object())
    monkeypatch.setitem(sys.modules, "faiss_dmih.gpu", engine)
    assert getattr(faiss_dmih, name) is getattr(engine, name)
    assert name in dir(faiss_dmih)
    assert name not in vars(faiss_dmih)


def test_importing_does_not_import_the_cuda_engine() -> None:
    script = "import sys, faiss_dmih; dir(faiss_dmih); sys.exit('faiss_dmih.gpu' in sys.modules)"
    done = run(script, without_faiss=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["GpuIndex", "gpu_index", "IndexMIDH"])
def test_other_names(name: str) -> None:
    with pytest.raises(AttributeError, match=f"'faiss_dmih' has no attribute '{name}'"):
        getattr(faiss_dmih, name)


def test_ray_is_asked_for_when_it_is_used() -> None:
    done = run(
        """
        import sys
        sys.modules["ray"] = None  # as if it were not installed
        import faiss_dmih, faiss_dmih.distributed as distributed, numpy as np
        try:
            distributed.ShardedIndexDMIH.build(np.zeros((3, 8), np.uint8), 1, "/nowhere/at/all")
        except ImportError as error:
            print(error)
        """,
        without_faiss=False,
    )
    assert done.returncode == 0, done.stderr
    assert "needs Ray" in done.stdout
    assert "pip install 'faiss-dmih[ray]'" in done.stdout
    done = run(
        """
        import sys, faiss_dmih.distributed
        assert not {"ray", "torch", "fsspec", "pandas", "pyarrow"} & {*sys.modules}
        """,
        without_faiss=False,
    )
    assert done.returncode == 0, done.stderr
