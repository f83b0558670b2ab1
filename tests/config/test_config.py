import json
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sdist.config.build import load_settings, resolve, settings_of
from sdist.config.layers import kept_rate, layered
from sdist.errors import UserError
from sdist.gammas import Constant
from sdist.losses.dds import DDS
from sdist.losses.sbp import SBP
from sdist.models.catalogue import STABLE_DIFFUSION, find_model
from sdist.registry import Registry
from sdist.timesteps import Annealed, Descending, Uniform


def test_command_line_wins_over_yaml_over_defaults() -> None:
    assert load_settings("lusd").editor.steps == 300
    settings = load_settings("lusd", ["steps=7", "loss.scale=2", "regularizers.source_pull.weight=0.5"])
    assert (settings.editor.steps, settings.editor.loss, settings.editor.regularizers["source_pull"].weight) == (7, SBP(2.0), 0.5)
    assert load_settings("lusd", ["steps=7"], steps=9).editor.steps == 9


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("lime", "num_inference_steps"),
        ("instruct_pix2pix", "num_inference_steps"),
        ("sdedit", "num_inference_steps"),
        ("ledits_pp", "num_inversion_steps"),
        ("p2p", "steps"),
        ("dds", "steps"),
    ],
)
def test_steps_are_the_field_of_the_editor_that_counts_them(method: str, field: str) -> None:
    editor = load_settings(method, [] if method == "dds" else [f"editor.{field}=9"], steps=20).editor
    assert editor == replace(load_settings(method).editor, **{field: 20})
    assert load_settings(method, ["steps=20"]).editor == settings_of(method, {}, {"steps": 20}).editor == editor
    with pytest.raises(UserError, match=r"--steps many: .* must be a whole number, got 'many'"):
        load_settings(method, steps="many")


def test_a_slot_that_changes_its_component_loses_the_old_fields() -> None:
    assert load_settings("lusd", ["loss=dds"]).editor.loss == DDS()
    assert load_settings("lusd", ["loss.name=dds", "loss.guidance_scale=3"]).editor.loss == DDS(3.0)
    assert load_settings("lusd", ["loss=dds", "loss.guidance_scale=3"]).editor.loss == DDS(3.0)
    assert settings_of("lusd", {"loss": "dds", "loss.guidance_scale": 3}, {}).editor.loss == DDS(3.0)
    assert load_settings("lusd", ["filter=null"]).editor.filter is None
    assert "attention_mask" not in load_settings("lusd", ["regularizers.attention_mask=null"]).editor.regularizers


def test_a_slot_without_a_name_has_fields_of_its_default() -> None:
    """So do the timesteps of yamls and run cards that were written before they were a slot."""
    assert load_settings("lusd_released").editor.timesteps == Uniform(50, 948)
    assert load_settings("lusd_released", ["timesteps.t_min=9"]).editor.timesteps == Uniform(9, 948)
    assert load_settings("lusd_released", ["timesteps={name: uniform, t_min: 9}"]).editor.timesteps == Uniform(9, 948)
    assert load_settings("lusd_released", ["timesteps=annealed"]).editor.timesteps == Annealed()
    assert load_settings("lusd", ["timesteps.name=descending", "timesteps.skip=17"]).editor.timesteps == Descending(17)
    assert load_settings("dds", ["gamma.value=2"]).editor.gamma == Constant(2.0)
    card = load_settings("lusd").plain() | {"timesteps": {"t_min": 20, "t_max": 800}}
    assert resolve(card, "card").editor.timesteps == Uniform(20, 800)


def test_step_and_threshold_follow_the_model() -> None:
    settings = load_settings("lusd", model="CompVis/stable-diffusion-v1-4")
    assert settings.editor.optimizer.lr == 2000 / 4096
    assert settings.editor.filter.threshold == 0.01
    assert settings.editor.regularizers["attention_mask"].cross_level == 2
    assert load_settings("lusd", ["scale.step=0.1"]).editor.optimizer.lr == 0.1
    assert load_settings("lusd", ["optimizer.lr=0.2"]).editor.optimizer.lr == 0.2


def test_ablations_differ_from_lusd_in_one_thing() -> None:
    lusd = load_settings("lusd").plain()
    expected = {
        "lusd_no_spatial": {"regularizers"},
        "lusd_no_normalization": {"normalizer"},
        "lusd_no_annealing": {"gamma"},
        "lusd_no_filtering": {"filter"},
        "dds_lusd": {"loss"},
        "lusd_released": {"timesteps", "prompts", "regularizers", "filter"},
    }
    for name, changed in expected.items():
        plain = load_settings(name).plain()
        assert {key for key in plain if plain[key] != lusd[key]} == changed


BAD = [
    (["los=dds"], r"unknown key 'los' in --set los=dds.*did you mean 'loss'"),
    (
        ["loss.name=ddd"],
        r"unknown loss 'ddd'; did you mean 'dds'.*have cds, chord, combination.*--plugin FILE.py, in Python",
    ),
    (
        ["loss.scal=3"],
        r"unknown key 'scal' in loss sbp in --set loss.scal=3; did you mean 'scale'\? have scale, weighting.*method is lusd",
    ),
    (["steps=abc"], "--set steps=abc: steps must be a whole number, got 'abc'"),
    (["steps=0"], "steps must be at least 1"),
    (["filter.threshold=x"], "threshold must be a number, got 'x'"),
    (["timesteps.t_min=2000"], "t_min=2000"),
    (["timesteps.tmin=3"], r"unknown key 'tmin' in timesteps uniform in --set.*did you mean 't_min'"),
    (["timesteps=null"], "timesteps cannot be null"),
    (["timesteps=descending", "timesteps.t_max=900"], "unknown key 't_max' in timesteps descending"),
    (["gamma=cosine", "gamma.value=2"], "unknown key 'value' in gamma cosine"),
    (["optimizer.name=Adm"], "did you mean 'Adam'"),
    (["regularizers.foo={}"], "unknown regularizer 'foo': have attention_mask, cluster_mask, difference_mask, source_pull"),
    (["regularizers.attention_mask=3"], "regularizers is a mapping"),
    (
        ["regularizers.user_mask={}"],
        r"regularizers.user_mask={}: regularizers: attention_mask and user_mask are masks, a method has one",
    ),
    (["regularizers.attention_mask.timing=now"], "timing must be one of current, previous, got 'now'"),
    (["steps"], "key=value"),
    (["=3"], "key=value"),
    (["optimizer.lr=${nope}"], "nope"),
    (["model=sd99"], r"unknown model 'sd99'.*tinyworld"),
    (["loss=null"], "cannot be null"),
    (["gamma=[1]"], "gamma needs a name"),
    (["loss.scale={a: 1}"], "scale must be a number, got {'a': 1}"),
    (["loss=dds", "loss.guidance_scale=[3, 7.5]"], r"guidance_scale must be a number, got \[3, 7.5\]"),
    (["loss={name: cds, patch_sizes: 3}"], "patch_sizes must be a list .each a whole number., got 3"),
    (["loss.scale=.inf"], "scale must be finite, got inf"),
    (["log=csv"], "log must be a mapping of images_every, .*chosen by --log, got 'csv'"),
    (["prompts=x"], "prompts must be a mapping of null, negative"),
    (["optimizer.options=3"], "options must be a mapping, got 3"),
    (["optimizer.lr=.nan"], "lr must be finite, got nan"),
    (["optimizer.lr=0"], "lr=0.0 a step leads nowhere"),
    (["optimizer={name: Adam, lr: 0.1, options: {betas: [0.9]}}"], r"Adam cannot use lr=0.1, betas=\[0.9\]"),
    (["optimizer.options={momentum: x}"], "SGD cannot use lr=.*, momentum='x'"),
    (["gamma={high: 0.01, low: 0.15}"], "gamma.*goes down, so high >= low.*got high=0.01, low=0.15"),
    (["gamma={name: linear, high: 0.01, low: 0.15}"], "goes down"),
    (["gamma={name: cosine, low: -1}"], "goes down"),
    (["gamma.speed=-5"], "speed must be above 0"),
    (["gamma={name: constant, value: 0}"], "value must be above 0"),
    (["scale.foo=1"], "unknown key 'foo' in scale"),
    (["scale=5"], "scale is a mapping"),
    (["scale=null"], "scale is a mapping"),
    (["regularizers=[attention_mask]"], r"regularizers must be a mapping {name: {field: value}}.*got \['attention_mask'\]"),
    (["optimizer.name=SparseAdam"], "unknown optimizer"),
    (["log.images_every=0"], "images_every must be at least 1"),
    (["loss={name: cds, patch_sizes: [0]}"], "patch_sizes must be at least 1"),
    (["loss={name: cds, temperature: 0}"], "temperature above 0"),
    (["x.y.z=1"], "unknown key 'x'"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD)
def test_bad_values_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_settings("lusd", overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "a method is a mapping"),
        ("loss: {name: os.system}", "unknown loss 'os.system'"),
        ("a: [", "cannot be read"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
        ("base: nothing", "unknown method 'nothing'"),
        ("base: [dds, lusd]", r"own.yaml: base is the name or the yaml of one method, got \['dds', 'lusd'\]"),
        ("base: 3", "own.yaml: base is the name"),
        ("base: lusd\nregularizers: [attention_mask]", "own.yaml: regularizers must be a mapping"),
        ("base: lusd\nlog: csv", "own.yaml: log must be a mapping of images_every"),
        ("base: lusd\nmodel: [a]", "own.yaml: model is text, got"),
        ("base: lusd\nsteps: [1]", "own.yaml: steps must be a whole number"),
        ("loss: combination", "^loss combination in own.yaml: every coefficient is 0"),
        ("loss: {name: combination, noise: x}", "^loss combination in own.yaml: noise must be a finite number"),
        ("timesteps: {t_min: 960}", "^timesteps uniform in own.yaml: need 0 <= t_min"),
        ("editor: prompt_to_prompt\nsteps: 3", r"own.yaml: steps: no setting .*; its own is editor.steps"),
        ("editor: lime\nsteps: 3", r"own.yaml: steps: no setting .*; its own is editor.num_inference_steps"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_settings(str(path))


def test_bases_may_have_bases_but_no_circle(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("base: dds_lusd\nsteps: 7\n")
    (tmp_path / "second.yaml").write_text(f"base: {tmp_path / 'first.yaml'}\nloss: {{name: sbp, scale: 2}}\n")
    assert load_settings(str(tmp_path / "second.yaml")).editor == replace(
        load_settings("dds_lusd").editor, steps=7, loss=SBP(2.0)
    )
    (tmp_path / "first.yaml").write_text(f"base: {tmp_path / 'second.yaml'}\n")
    with pytest.raises(UserError, match="first > second"):
        load_settings(str(tmp_path / "first.yaml"))


def test_a_yaml_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("base: lusd\nloss: {name: combination, edit_target: 1, edit_negative: {0: 0, 200: -1}}\n")
    settings = load_settings(str(path))
    assert settings.editor.loss.edit_negative == {0: 0, 200: -1}
    assert resolve(json.loads(json.dumps(settings.plain())), "card") == settings


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer=Adam"], True),
        (["optimizer.name=Adam", "steps=3"], True),
        (["optimizer.lr=0.01", "optimizer=Adam"], False),
        (["optimizer={name: Adam, lr: 0.01}"], False),
        (["optimizer=Adam", "optimizer.lr=0.01"], False),
        (["optimizer.lr=0.01"], False),
        (["optimizer=SGD"], False),
    ],
)
def test_an_optimizer_that_keeps_the_learning_rate_of_another_is_said(caplog, overrides: list[str], said: bool) -> None:
    optimizer = load_settings("lusd", overrides).editor.optimizer
    assert ("keeps the lr of SGD (0.035)" in caplog.text) == said
    assert not said or optimizer == replace(load_settings("lusd").editor.optimizer, name="Adam")


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (lambda: load_settings("p2p", [], steps="many"), "editor prompt_to_prompt in --steps many: steps must"),
        (lambda: load_settings("p2p", [], compile=True), "--compile: compile"),
        (lambda: load_settings("p2p", ["seed=1", "compile=true"], seed=3), "--set compile=true: compile"),
        (lambda: load_settings("p2p", ["editor.steps=x"], seed=3), "editor prompt_to_prompt in --set editor.steps=x: steps must"),
        (lambda: load_settings("lusd", ["timesteps.t_min=960", "timesteps.t_max=970", "optimizer.lr=x"]), "--set optimizer.lr=x"),
        (lambda: load_settings("lusd", ["steps=7"], size=[1]), r"--size \[1\]: size is text"),
        (lambda: settings_of("p2p", {}, {"compile": True}), "compile=True: compile"),
        (lambda: settings_of("p2p", {"seed": 1, "compile": True}, {}), "settings 'compile': compile"),
        (lambda: settings_of("p2p", ["compile=true"], {"seed": 1}), "settings 'compile=true': compile"),
    ],
)
def test_what_was_given_is_to_blame_and_not_the_yaml(load, name: str) -> None:
    with pytest.raises(UserError, match=f"^(optimizer in )?{name}") as error:
        load()
    assert ".yaml" not in str(error.value)


@pytest.mark.parametrize(("name", "message"), [("lus", "did you mean 'lusd'"), ("nowhere.yaml", "does not exist")])
def test_methods_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_settings(name)


def test_models(tmp_path: Path, tiny_folder: Path) -> None:
    assert find_model(str(tiny_folder)).scale == STABLE_DIFFUSION
    assert find_model("owner/name").sources == ("owner/name",)
    assert len(find_model("sd15").sources) > 1
    with pytest.raises(UserError, match=r"no model_index.json"):
        find_model(str(tmp_path))
    with pytest.raises(UserError, match="did you mean 'sd15'"):
        find_model("sd1.5")


def test_a_registry_refuses_a_name_twice() -> None:
    registry: Registry = Registry("thing", "sdist.gammas")
    registry.register("a")(int)
    with pytest.raises(ValueError, match="thing 'a' is already int"):
        registry.register("a")(float)


def test_layers_stay_as_they_were() -> None:
    texts = (
        "{baseline: {name: sdedit, strength: 0.5}, loss: {name: cds, weight: 1}, list: [1]}",
        "{editor: lime, loss: dds, list: {a: 1}}",
    )
    layers = [OmegaConf.create(text) for text in texts]
    before = [OmegaConf.to_yaml(layer) for layer in layers]
    together = layered(layers)
    assert (together.editor, together.loss, together["list"]) == ({"name": "lime"}, {"name": "dds"}, {"a": 1})
    assert kept_rate(layers, "SGD") is None
    assert [OmegaConf.to_yaml(layer) for layer in layers] == before


@pytest.mark.parametrize("method", ["lusd", "lusd_released", "lusd_difference", "lusd_clusters", "dds_lusd"])
def test_lusd_asks_for_no_timestep_below_its_models(method: str) -> None:
    lowest = {
        model: load_settings(method, [f"model={model}"]).editor.timesteps.t_min for model in ("tinyworld", "tinyworld-flow")
    }
    assert lowest == {"tinyworld": 50, "tinyworld-flow": 200}
