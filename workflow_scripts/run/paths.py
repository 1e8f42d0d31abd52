"""Where every artifact of a run lies.

Text, models and dumps are in the store, under a digest of all that they depend on, where runs
share them; everything else in ``results/<run>/<stage>/``. The Snakefile uses this module; no step
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workflow_scripts.autointerp.settings import TABLE_OF
from workflow_scripts.common.artifacts import FitFiles, SeedFiles
from workflow_scripts.dataset.local_files import source_files
from workflow_scripts.run import comparisons, store_keys
from workflow_scripts.run.settings import Config

STORE = "results/store"

PURPOSES = {table: purpose for purpose, table in TABLE_OF.items()}
"""Table of annotations to the purpose of the requests that fill it."""


@dataclass(frozen=True)
class Paths:
    """The paths of a run's artifacts, relative to the working directory."""

    config: Config
    converted = "from-gguf"
    """Name of the folder that is made of a GGUF file; no model's name has a hyphen."""

    @property
    def results(self) -> str:
        """The folder of the run."""
        return f"results/{self.config.run}"

    @property
    def annotated(self) -> bool:
        """Whether latents are named; else the generator's categories are compared alone."""
        return self.config.autointerp.annotator != "none"

    # Text: drawn and tokenized shard by shard, so that a larger budget redoes no shard.

    @cached_property
    def documents(self) -> list[str]:
        """The tables of documents, one per shard."""
        return [f"{stem}.parquet" for stem in self._document_stems]

    @cached_property
    def document_manifests(self) -> list[str]:
        """The manifests of those tables."""
        return [f"{stem}.json" for stem in self._document_stems]

    @cached_property
    def _document_stems(self) -> list[str]:
        keys = (store_keys.documents_key(self.config, n) for n in self._shards)
        return [f"{STORE}/{key}/documents/shard{n:03d}" for n, key in enumerate(keys)]

    @cached_property
    def tokens(self) -> list[str]:
        """The token shards."""
        return [f"{stem}.h5" for stem in self._token_stems]

    @cached_property
    def token_manifests(self) -> list[str]:
        """Their manifests."""
        return [f"{stem}.json" for stem in self._token_stems]

    @cached_property
    def _token_stems(self) -> list[str]:
        keys = (store_keys.tokens_key(self.config, n) for n in self._shards)
        return [f"{STORE}/{key}/tokens/shard{n:03d}" for n, key in enumerate(keys)]

    @property
    def _shards(self) -> range:
        return range(store_keys.shards(self.config))

    @property
    def labels(self) -> str:
        """The labels of the documents that need no LLM, by labeller."""
        return f"{self.results}/dataset/labels.parquet"

    @property
    def llm_labels(self) -> str:
        """The folder of an LLM's labels of documents."""
        return f"{self.results}/autointerp/documents"

    @property
    def label_files(self) -> list[str]:
        """The tables of labels of documents that comparisons read."""
        llm = comparisons.llm_labels_documents(self.config)
        return [self.labels, *([f"{self.llm_labels}/labels.parquet"] if llm else [])]

    def text_files(self) -> list[Path]:
        """Return the local files from which documents are drawn."""
        sources = self.config.text.sources.values()
        return [file for source in sources for file in source_files(source)]

    # Models and activations

    def manifest(self, model: str) -> str:
        """Return the manifest of a model."""
        return f"{STORE}/{store_keys.model_key(self.config, model)}/{model}/model.json"

    def compared_manifests(self, comparison: str) -> dict[str, str]:
        """Return the manifests of the models of a comparison, by side."""
        models = comparisons.models_of(self.config, comparison)
        return {
            side: self.manifest(model)
            for side, model in zip(("baseline", "candidate"), models, strict=True)
        }

    def weights(self, comparison: str) -> str:
        """Return how far the weights of a comparison's models are apart."""
        return f"{self.results}/models/weights/{comparison}.csv"

    def base_manifest(self, organism: str) -> list[str]:
        """Return the manifest of the model from which an organism starts, if any."""
        lessons = self.config.models[organism].organism
        assert lessons is not None
        return [self.manifest(lessons.base)] if lessons.base else []

    def model_folder(self, model: str) -> str | None:
        """Return the folder of a local model's files: of a GGUF file, the one made of it."""
        source = self.config.models[model]
        if source.gguf is None:
            return source.path
        return f"{STORE}/{store_keys.converted_key(self.config, model)}/{self.converted}"

    def gguf_file(self, key: str) -> str:
        """Return the GGUF file of which the folder with a key is made."""
        models = self.config.models.items()
        files = {store_keys.converted_key(self.config, n): m.gguf for n, m in models if m.gguf}
        return str(files[key])

    def model_files(self, model: str) -> list[str]:
        """Return the files by which a local model and adapter are known, none for the hub's."""
        source, folder = self.config.models[model], self.model_folder(model)
        model_file = [f"{folder}/config.json"] if folder else []
        local_adapter = source.adapter and source.adapter_revision is None
        return model_file + ([f"{source.adapter}/adapter_config.json"] if local_adapter else [])

    def dump(self, model: str, group: str, shard: int) -> str:
        """Return a model's activations of a shard at a group of layers."""
        key = store_keys.dump_key(self.config, model, group, shard)
        return f"{STORE}/{key}/{model}/{group}/shard{shard:03d}.h5"

    def dumps(self, model: str, layer: int) -> list[str]:
        """Return the shards that hold a model's activations at a layer, in order."""
        group = self.group_of(layer)
        return [self.dump(model, group, shard) for shard in self._shards]

    def group_of(self, layer: int) -> str:
        """Return the dump group of a layer."""
        return next(name for name, layers in self.config.layers.items() if layer in layers)

    def normalizer(self, model: str, layer: int) -> str:
        """Return the file of a model's normaliser at a layer."""
        return f"{self.results}/activations/{model}/layer{layer}/normalizer.h5"

    def store_entries(self) -> set[str]:
        """Return the folders of the store that hold something of this run's, by name."""
        models = self.config.models
        dumps = (
            self.dump(model, group, shard)
            for model in models
            for group in self.config.layers
            for shard in self._shards
        )
        files = [*self.documents, *self.tokens, *map(self.manifest, models), *dumps]
        return {Path(file).relative_to(STORE).parts[0] for file in files}

    # Crosscoders, their latents and annotations

    def crosscoder(self, fit: str, seed: int | str) -> str:
        """Return the folder of a crosscoder."""
        return f"{self.results}/crosscoder/{fit}/seed{seed}"

    def latents(self, fit: str, seed: int | str) -> str:
        """Return the folder of the tables of a crosscoder's latents."""
        return f"{self.results}/latents/{fit}/seed{seed}"

    def annotations(self, fit: str, seed: int | str) -> str:
        """Return the folder of the explanations, labels and scores of a crosscoder's latents."""
        return f"{self.results}/autointerp/{fit}/seed{seed}"

    def purpose(self, wildcards: Any) -> str:
        """Return the folder of the LLM purpose that the table of a job serves."""
        return f"{self.annotations(wildcards.fit, wildcards.seed)}/{PURPOSES[wildcards.table]}"

    def quoted_explanations(self, wildcards: Any) -> list[str]:
        """Return the explanations that a job's requests quote; requests for them quote none."""
        folder = self.annotations(wildcards.fit, wildcards.seed)
        return [] if wildcards.purpose == "explain" else [f"{folder}/llm/explanations.parquet"]

    def of_seeds(self, stage: str, fits: Iterable[str], *files: str) -> list[str]:
        """Return files of a stage for each seed of the fits."""
        return [
            f"{self.results}/{stage}/{fit}/seed{seed}/{file}"
            for fit in fits
            for seed in self.config.fits[fit].seeds
            for file in files
        ]

    def fit_inputs(self, fit: str) -> dict[str, list[str]]:
        """Return the files of activations and normalisers that a fit reads."""
        layer, models = self.config.fits[fit].layer, self.config.fits[fit].models
        return {
            "activations": [file for model in models for file in self.dumps(model, layer)],
            "normalizers": [self.normalizer(model, layer) for model in models],
        }

    def imported_files(self, fit: str) -> list[str]:
        """Return the files of a published crosscoder in a folder, none for the hub's."""
        imported = self.config.fits[fit].imported
        return [f"{imported.path}/model.safetensors"] if imported and imported.path else []

    def first_crosscoder(self, comparison: str) -> str:
        """Return the folder of a direct comparison's first crosscoder."""
        fit = comparisons.fit_of(self.config, comparison)
        return self.crosscoder(fit, comparisons.first_seed(self.config, comparison))

    def first_latents(self, comparison: str, table: str) -> str:
        """Return a table of the latents of a direct comparison's first crosscoder."""
        fit = comparisons.fit_of(self.config, comparison)
        folder = self.latents(fit, comparisons.first_seed(self.config, comparison))
        return f"{folder}/{table}.parquet"

    def null_latents(self, fit: str) -> list[str]:
        """Return the latents of the null beside a fit, if it has one."""
        null = comparisons.null_fit(self.config, fit)
        if null is None:
            return []
        return [f"{self.latents(null, self.config.fits[null].seeds[0])}/latents.parquet"]

    def patching_inputs(self, comparison: str) -> dict[str, object]:
        """Return what the steps read that patch a direct comparison's models."""
        fit = comparisons.fit_of(self.config, comparison)
        return {
            "models": [self.manifest(model) for model in self.config.fits[fit].models],
            "crosscoder": f"{self.first_crosscoder(comparison)}/crosscoder.safetensors",
            "normalizers": self.fit_inputs(fit)["normalizers"],
            "tokens": self.tokens,
        }

    # What comparisons and the report read

    @property
    def label_tables(self) -> list[str]:
        """The tables of latents' labels that comparisons read, without ending."""
        return ["labels"] if self.annotated else []

    @property
    def latent_tables(self) -> list[str]:
        """The tables of the latents stage that comparisons read, without ending."""
        return ["latents", "selection", *(["sampled"] if self.annotated else [])]

    def labelled_latents(self, fit: str, seed: int) -> SeedFiles:
        """Return the tables of one crosscoder that comparisons read."""
        latents, annotations = Path(self.latents(fit, seed)), Path(self.annotations(fit, seed))
        return SeedFiles(
            latents=latents / "latents.parquet",
            selection=latents / "selection.parquet",
            sampled=latents / "sampled.parquet" if self.annotated else None,
            labels=(annotations / "labels.parquet",) if self.annotated else (),
        )

    def fits(
        self, names: Iterable[str], files: Callable[[str, int], SeedFiles]
    ) -> dict[str, FitFiles]:
        """Return fits as a later step reads them: ``files`` gives those of a fit and seed."""
        fits = {name: self.config.fits[name] for name in names}
        return {
            name: FitFiles(
                models=tuple(fit.models),
                layer=fit.layer,
                seeds={seed: files(name, seed) for seed in fit.seeds},
            )
            for name, fit in fits.items()
        }

    def labelled_fits(self) -> dict[str, FitFiles]:
        """Return the tables of all compared fits that comparisons read."""
        return self.fits(comparisons.compared_fits(self.config), self.labelled_latents)

    def first_labelled(self, comparison: str) -> dict[str, FitFiles]:
        """Return those tables of a direct comparison's first crosscoder alone."""
        fit = comparisons.fit_of(self.config, comparison)
        files = self.fits([fit], self.labelled_latents)[fit]
        first = comparisons.first_seed(self.config, comparison)
        return {fit: files.model_copy(update={"seeds": {first: files.seeds[first]}})}

    def comparison_inputs(self) -> dict[str, str | list[str]]:
        """Return the files that the steps read that compare categories."""
        fits = comparisons.compared_fits(self.config)
        tables, labels = (
            [f"{table}.parquet" for table in names]
            for names in (self.latent_tables, self.label_tables)
        )
        return {
            "latents": self.of_seeds("latents", fits, *tables),
            "labels": self.of_seeds("autointerp", fits, *labels),
        }

    @property
    def losses(self) -> str:
        """How well each compared model predicts documents."""
        return f"{self.results}/comparison/losses.parquet"

    @property
    def divergences(self) -> str:
        """How differently the models of each comparison predict documents."""
        return f"{self.results}/comparison/divergences.parquet"

    def weighed(self, comparison: str, ending: str = "") -> dict[int, str]:
        """Return a comparison's tables of weighed documents by seed, none unless it is direct.

        With the ending ``_carriers`` they are those of the latents that carry the difference.
        """
        if comparison not in comparisons.direct_comparisons(self.config):
            return {}
        stem = f"{self.results}/comparison/documents/{comparison}"
        seeds = self.config.fits[comparisons.fit_of(self.config, comparison)].seeds
        return {seed: f"{stem}_seed{seed}{ending}.parquet" for seed in seeds}

    def weighed_documents(self) -> list[str]:
        """Return the tables of weighed documents of all comparisons."""
        return [path for name in self.config.comparisons for path in self.weighed(name).values()]

    def predictions(self, comparison: str) -> dict[str, str]:
        """Return what two models predict differently: by label, by token, by row of a document."""
        stem = f"{self.results}/comparison/predictions/{comparison}"
        return {
            "labels": f"{stem}.csv",
            "tokens": f"{stem}_tokens.parquet",
            "rows": f"{stem}_rows.parquet",
        }

    def answers(self, comparison: str, ending: str = "parquet") -> str:
        """Return both models' answers to held-out prompts, or (``csv``) how they differ."""
        return f"{self.results}/comparison/answers/{comparison}.{ending}"

    def witnesses(self) -> dict[str, dict[str, object]]:
        """Return what is known of each direct comparison beside the tables of all."""
        config = self.config
        predicted, answered = (
            comparisons.predicted_comparisons(config),
            comparisons.answered_comparisons(config),
        )
        return {
            name: {
                "seed": comparisons.first_seed(config, name),
                "placebo": comparison.placebo,
                "predictions": self.predictions(name)["labels"] if name in predicted else None,
                "answers": self.answers(name, "csv") if name in answered else None,
            }
            for name, comparison in comparisons.uncontrolled(config).items()
        }

    def links(self) -> dict[str, str]:
        """Return the links in the run's folder to what lies in the store."""
        config = self.config
        dumps = {
            f"{self.results}/activations/{model}/layer{fit.layer}": self.dumps(model, fit.layer)
            for fit in config.fits.values()
            for model in fit.models
        }
        manifests = {f"{self.results}/models/{m}": [self.manifest(m)] for m in config.models}
        folders = {
            f"{self.results}/dataset/documents": self.documents,
            f"{self.results}/dataset/tokens": self.tokens,
            **manifests,
            **dumps,
        }
        return {
            f"{folder}/{Path(file).name}": file
            for folder, files in folders.items()
            for file in files
        }


def files_of(fits: dict[str, FitFiles]) -> list[str]:
    """Return all files of the seeds of the fits."""
    seeds = [files for fit in fits.values() for files in fit.seeds.values()]
    values = [value for files in seeds for _, value in files if value is not None]
    return [
        str(file) for value in values for file in ([value] if isinstance(value, Path) else value)
    ]
