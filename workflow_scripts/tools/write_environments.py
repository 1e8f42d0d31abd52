"""Write envs/*.yaml from requirements.lock.

``python -m workflow_scripts.tools.write_environments``

They serve ``snakemake --sdm conda``. A test fails when they and the lock differ.
"""

from __future__ import annotations

from workflow_scripts.common.provenance import ROOT

COMMON = (
    "cyclopts",
    "h5py",
    "isal",
    "jaxtyping",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "PyYAML",
    "scikit-learn",
    "scipy",
    "statsmodels",
    "wadler_lindig",
)
ENVIRONMENTS = {
    "tables": ("datasets", "Jinja2", "MarkupSafe", "matplotlib", "seaborn"),
    "torch": (
        "accelerate",
        "filelock",
        "gguf",
        "huggingface_hub",
        "Jinja2",
        "peft",
        "safetensors",
        "tokenizers",
        "torch",
        "transformers",
    ),
    "llm": ("aiohttp", "aiolimiter", "httpx2", "json_repair", "openai", "tenacity"),
}
PYTHON = "3.11"


def locked() -> dict[str, str]:
    """Return the version of each package in requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {name: version for name, _, version in pairs}


def environment(packages: tuple[str, ...]) -> str:
    """Return a conda environment of ``packages`` at their locked versions."""
    versions = locked()
    lines = [f"      - {name}=={versions[name]}" for name in sorted(packages, key=str.lower)]
    return (
        "# Written from requirements.lock by "
        "`python -m workflow_scripts.tools.write_environments`.\n"
        "channels:\n  - conda-forge\n  - nodefaults\n"
        f"dependencies:\n  - python={PYTHON}\n  - pip\n  - pip:\n" + "\n".join(lines) + "\n"
    )


def write_environments() -> dict[str, str]:
    """Return file name and content of every environment."""
    return {f"{name}.yaml": environment(COMMON + own) for name, own in ENVIRONMENTS.items()}


def main() -> int:
    """Write the files."""
    for name, text in write_environments().items():
        (ROOT / "envs" / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
