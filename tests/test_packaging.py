"""The sdist builds a wheel, and the wheel works outside the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(900)  # fetches the build requirements and compiles
def test_wheel_from_sdist(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "faiss_dmih/_cuda/offsets.cu" in names
    assert "faiss_dmih/py.typed" in names
    assert "faiss_dmih/bench/suites/core.toml" in names
    assert any(name.startswith("faiss_dmih/_engine.") and name.endswith(".so") for name in names)
    assert not [name for name in names if name.endswith((".cpp", ".hpp")) or "libfaiss" in name]

    installed = tmp_path / "installed"
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
        *("--target", installed, wheel),
        cwd=tmp_path,
    )
    # Without `site`, so that an editable install of the working tree does not step in front.
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib")])
    script = (
        "import faiss, faiss_dmih, numpy as np\n"
        "xb = np.arange(80_000, dtype=np.uint64).view(np.uint8).reshape(-1, 8)\n"
        "index = faiss.IndexBinaryIDMap2(faiss_dmih.IndexDMIH(64))\n"
        "index.add_with_ids(xb, np.arange(80_000) + 5)\n"
        "assert (index.search(xb[::100], 1)[1].ravel() == np.arange(5, 80_005, 100)).all()\n"
        "from faiss_dmih.gpu import kernels\n"
        "assert kernels.source('offsets', {'kWords': 1})\n"
        "assert kernels.folder().parent.name == 'faiss_dmih'\n"
        "print(faiss_dmih.__file__)"
    )
    where = run(sys.executable, "-S", "-c", script, cwd=tmp_path, PYTHONPATH=path)
    assert where.strip().startswith(str(installed))
    # Neither of the extras that bring FAISS is needed to import it.
    script = "import sys; sys.modules['faiss'] = None; from faiss_dmih import codes, reference"
    run(sys.executable, "-S", "-c", script, cwd=tmp_path, PYTHONPATH=path)
    listing = run(
        *(sys.executable, "-S", "-c", "from faiss_dmih.cli import main; main()", "bench", "--help"),
        cwd=tmp_path,
        PYTHONPATH=path,
    )
    assert "--dataset" in listing
