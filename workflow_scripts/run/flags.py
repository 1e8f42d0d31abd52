"""Settings as flags of the steps' command lines. The Snakefile uses this module; no step does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from workflow_scripts.common.cli import ARGUMENTS
from workflow_scripts.common.files import write_text
from workflow_scripts.comparison.settings import CategoryTest
from workflow_scripts.crosscoder.settings import Fit, Training
from workflow_scripts.dataset.settings import RecordSource, Rendering
from workflow_scripts.models.settings import ModelFiles, Preference
from workflow_scripts.run import comparisons, store_keys
from workflow_scripts.run.paths import Paths
from workflow_scripts.run.settings import Config

LONGEST = 100_000
"""Bytes of an argument, of which Linux allows 131,071; longer ones are passed by file."""


def as_json(value: object) -> str:
    """Return ``value`` as JSON with sorted keys, or the name of a file with it."""
    return _argument(json.dumps(value, sort_keys=True))


def in_order(value: object) -> str:
    """Return ``value`` as JSON in the config's order, where the first one counts.

    Groups are written without what is not set. Long JSON is passed by file.
    """
    return _argument(json.dumps(value, default=_set_fields))


def _argument(text: str) -> str:
    """Return an argument as it stands, or ``@`` and a file that holds it and has its digest."""
    if len(text) <= LONGEST:
        return text
    path = f"{ARGUMENTS}{store_keys.digest(text)}.json"
    if not Path(path).exists():
        write_text(Path(path), text)
    return f"@{path}"


def _set_fields(group: BaseModel) -> dict[str, object]:
    return group.model_dump(mode="json", exclude_none=True)


def flags(settings: BaseModel, *names: str | type[BaseModel]) -> list[str]:
    """Return settings as flags: ``nu_r`` 0.5 becomes ``--nu-r=0.5``; None gives none.

    ``names`` are those of settings, or groups of which ``settings`` has all; without any, all.
    """
    groups = names or (type(settings),)
    chosen = [n for g in groups for n in ([g] if isinstance(g, str) else g.model_fields)]
    values = {name: getattr(settings, name) for name in chosen}
    return [f"--{n.replace('_', '-')}={_text(v)}" for n, v in values.items() if v is not None]


def _text(value: object) -> str:
    """Return a setting's value as a flag holds it; a group within a group is JSON."""
    return value.model_dump_json() if isinstance(value, BaseModel) else str(value)


@dataclass(frozen=True)
class Flags:
    """The flags that the settings of a run become, where several settings or files meet."""

    paths: Paths

    @property
    def config(self) -> Config:
        """The settings of the run."""
        return self.paths.config

    def labelling(self) -> list[str]:
        """Return the flags with the labels that the config gives sources, and their columns."""
        sources = self.config.text.sources.items()
        records = {name: source for name, source in sources if isinstance(source, RecordSource)}
        constants = {name: s.category for name, s in records.items() if s.category is not None}
        columns = {name: s.label_columns for name, s in records.items() if s.label_columns}
        return [f"--constants={as_json(constants)}", f"--columns={as_json(columns)}"]

    def later_shards(self, shard: int) -> list[str]:
        """Return the flags with the documents of the shards behind one, and their budgets."""
        later = range(shard + 1, store_keys.shards(self.config))
        return [
            *(f"--later={self.paths.documents[n]}" for n in later),
            *(f"--later-tokens={store_keys.budget(self.config, n)}" for n in later),
        ]

    def rendering(self) -> list[str]:
        """Return the flags that say how documents become tokens."""
        chosen = store_keys.control_model(self.config)
        text = self.config.text.model_copy(update={"control_tokens": chosen})
        return flags(text, Rendering)

    def lessons(self, organism: str) -> list[str]:
        """Return the flags with all that an organism is taught, and how."""
        shared, own = self.config.organism, self.config.models[organism].organism
        assert own is not None
        return [
            f"--teach={as_json(own.teach)}",
            f"--seed={1000 * shared.seed + own.seed}",
            f"--tokenizer-seed={shared.seed}",
            *flags(own, Preference),
            *flags(own.training(shared)),
        ]

    def model_source(self, model: str) -> list[str]:
        """Return the flags that say where a model comes from."""
        path = self.paths.model_folder(model)
        return flags(self.config.models[model].model_copy(update={"path": path}), ModelFiles)

    def activations(self, fit: str) -> list[str]:
        """Return the flags by which a step finds the activations of a fit."""
        settings, paths = self.config.fits[fit], self.paths
        layer, control = settings.layer, settings.control
        dumps = {model: paths.dumps(model, layer) for model in settings.models}
        return [
            f"--activations={in_order(dumps)}",
            f"--normalizers={in_order(self._normalizers(settings))}",
            f"--layer={layer}",
            *([f"--control={control}", f"--control-seed={self.config.seed}"] if control else []),
        ]

    def _normalizers(self, fit: Fit) -> dict[str, str]:
        return {model: self.paths.normalizer(model, fit.layer) for model in fit.models}

    def training(self, fit: str) -> list[str]:
        """Return the flags with the training settings of a fit."""
        return flags(self.config.fits[fit], Training)

    def checkpoint(self, fit: str, seed: str) -> str:
        """Return the checkpoint of a fit."""
        folder = self.paths.crosscoder(fit, seed)
        return _checkpoint(folder, self.activations(fit), self.training(fit))

    def launcher(self, fit: str) -> list[str]:
        """Return the command that starts a fit: Python, or a process per part of the batch."""
        count = self.config.fits[fit].processes
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        return ["python", *(torchrun if count > 1 else [])]

    def difference(self, comparison: str) -> list[str]:
        """Return the flags by which a step finds a direct comparison's difference."""
        fit = comparisons.fit_of(self.config, comparison)
        models = comparisons.models_of(self.config, comparison)
        return [*self.activations(fit), "--difference", *models]

    def difference_training(self, comparison: str) -> list[str]:
        """Return the training settings of the autoencoder on that difference: the crosscoder's.

        With one "model" there is nothing to share.
        """
        fit = self.config.fits[comparisons.fit_of(self.config, comparison)]
        tokens = self.config.comparison.difference_tokens or fit.tokens
        return flags(fit.model_copy(update={"shared_share": 0.0, "tokens": tokens}), Training)

    def difference_checkpoint(self, comparison: str) -> str:
        """Return the checkpoint of that autoencoder."""
        folder = f"{self.paths.results}/crosscoder/difference/{comparison}"
        return _checkpoint(
            folder, self.difference(comparison), self.difference_training(comparison)
        )

    def matched_seeds(self, fit: str) -> list[str]:
        """Return the flags with the crosscoder and the selection of each seed."""
        seeds, paths = self.config.fits[fit].seeds, self.paths
        crosscoders = {seed: paths.crosscoder(fit, seed) for seed in seeds}
        selections = {seed: f"{paths.latents(fit, seed)}/selection.parquet" for seed in seeds}
        return [f"--crosscoders={as_json(crosscoders)}", f"--selections={as_json(selections)}"]

    def patching(self, fit: str, documents: int) -> list[str]:
        """Return the flags of the steps that change the activations on which a fit was made."""
        settings = self.config.fits[fit]
        return [
            f"--normalizers={as_json(self._normalizers(settings))}",
            f"--layer={settings.layer}",
            f"--documents={documents}",
            *flags(self.config.activations, "compute_dtype"),
        ]

    def loss(self, fit: str) -> list[str]:
        """Return the flags of the step that measures the loss with a fit's reconstructions."""
        return self.patching(fit, self.config.fits[fit].loss_documents)

    def cause(self, comparison: str) -> list[str]:
        """Return the flags of the steps that patch a direct comparison's models."""
        fit = comparisons.fit_of(self.config, comparison)
        crosscoder = f"--crosscoder={self.paths.first_crosscoder(comparison)}"
        return [crosscoder, *self.patching(fit, self.config.comparison.cause_documents)]

    def models_of_fit(self, fit: str) -> str:
        """Return the flag with the manifests of a fit's models."""
        models = self.config.fits[fit].models
        return f"--models={as_json({model: self.paths.manifest(model) for model in models})}"

    def comparison(self) -> list[str]:
        """Return the flags of the steps that compare categories."""
        pairs = {name: c.model_dump() for name, c in self.config.comparisons.items()}
        return [
            f"--fits={in_order(self.paths.labelled_fits())}",
            f"--comparisons={in_order(pairs)}",
            *flags(self.config.comparison, CategoryTest),
        ]

    def compared_models(self, comparison: str) -> list[str]:
        """Return the flags with the models of baseline and candidate."""
        baseline, candidate = comparisons.models_of(self.config, comparison)
        return [f"--baseline={baseline}", f"--candidate={candidate}"]

    def judged_pairs(self) -> str:
        """Return the flag with the models and the weighed documents of each comparison."""
        pairs = {}
        for name in self.config.comparisons:
            baseline, candidate = comparisons.models_of(self.config, name)
            documents = self.paths.weighed(name)
            pairs[name] = {"baseline": baseline, "candidate": candidate, "documents": documents}
        return f"--pairs={in_order(pairs)}"

    def answering(self) -> list[str]:
        """Return the flags that name the comparison that answers, and whose labels do, in order."""
        name = comparisons.primary(self.config)
        usual = [f"--usual={labeller}" for labeller in comparisons.labellers(self.config)]
        return [*([f"--primary={name}"] if name else []), *usual]


def _checkpoint(folder: str, inputs: list[str], training: list[str]) -> str:
    """Return a checkpoint in a folder; its name changes with all on which the fit depends."""
    code = store_keys.step_digest("crosscoder.fit_crosscoder")
    return f"{folder}/checkpoint-{store_keys.digest([inputs, training, code])}.safetensors"
