"""A run on several devices and by several processes is the run on one, and says in one line what it cannot do.

Devices are made of the processor, processes are on this machine; `several_devices.py` is what they run.
"""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import fails, make_recipe
from PIL import Image
from test_without_tensorflow import ABSENT

import kzoo
from kzoo.check.jax_process import JaxProcess, jax_environment
from kzoo.errors import BackendError, InvalidValueError, KzooError
from kzoo.losses import ClassificationLoss
from kzoo.recipe import Hardware
from kzoo.train import devices, hosts, train
from kzoo.train.auxiliary import AuxiliaryHeads
from kzoo.train.devices import Devices, check_batch, check_recipe, choose_devices
from kzoo.train.hosts import Hosts, facts_of, joined
from kzoo.train.steps import build_metrics

TESTS = Path(__file__).parents[1]
TOLERANCE = 1e-5  # of sums in another order, relative to the largest number of an array
ENDS_SECONDS = 30  # in which processes end when one of them is killed


class Runs:
    """Runs of `several_devices.py` in a folder, by their names."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "absent").mkdir()
        (folder / "absent" / "sitecustomize.py").write_text(ABSENT)

    def start(self, *named: tuple[str, dict], devices: int = 0) -> subprocess.Popen[str]:
        """A process on JAX with so many devices, or on TensorFlow."""
        paths = [TESTS, Path(kzoo.__file__).parents[1]]
        environment = dict(os.environ)
        if devices:
            paths.insert(0, self.folder / "absent")
            environment = jax_environment()
            environment["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
            environment["JAX_COMPILATION_CACHE_DIR"] = str(self.folder / "cache")  # of runs that go on
        # kernels that do not depend on the batch, on any processor: those for AVX-512 round otherwise in its parts
        environment["ONEDNN_MAX_CPU_ISA"] = "AVX2"
        environment |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), "TF_CPP_MIN_LOG_LEVEL": "3"}
        words = [word for name, flags in named for word in (name, json.dumps(flags))]
        return subprocess.Popen(
            [sys.executable, TESTS / "several_devices.py", self.folder, *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *processes: subprocess.Popen[str], status: int = 0) -> list[tuple[str, str]]:
        """What they said, when all have ended with this status."""
        said = [process.communicate(timeout=600) for process in processes]
        assert [process.returncode for process in processes] == [status] * len(processes), said
        return said

    def pair(self, name: str, *each: dict, count: int = 4, **flags) -> list[subprocess.Popen[str]]:
        """Two processes that train together, with so many devices each."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            flags |= dict(coordinator=f"127.0.0.1:{free.getsockname()[1]}", processes=2)
        own = each or ({}, {})
        return [self.start((name, flags | dict(process_id=i) | own[i]), devices=count) for i in range(2)]

    def history(self, name: str) -> dict[str, np.ndarray]:
        """The columns of a run's history but for the time."""
        with (self.folder / name / "history.csv").open() as file:
            rows = list(csv.DictReader(file))
        return {key: np.array([float(row[key]) for row in rows]) for key in rows[0] if key != "seconds"}

    def state(self, name: str, epoch: int = 2) -> dict[str, np.ndarray]:
        """Weights, statistics and state of the optimizer after an epoch."""
        model = keras.saving.load_model(self.folder / name / "checkpoints" / f"epoch_{epoch:04d}.keras")
        assert any("moving_variance" in weight.path for weight in model.weights)
        state = {
            each.path.split("/", 1)[-1]: np.array(each) for each in model.optimizer.variables
        }  # of "sgd", "sgd_1"
        return {each.path: np.array(each) for each in model.weights} | state

    def assert_alike(self, name: str, other: str, tolerance: float = TOLERANCE) -> None:
        """The same history and state; a tolerance of 0 means to the bit.

        Accuracies count images, of which one on the edge between two classes may fall to either side.
        """
        for ours, theirs in ((self.history(name), self.history(other)), (self.state(name), self.state(other))):
            assert ours.keys() == theirs.keys()
            for key, value in theirs.items():
                limit = 0.01 if tolerance and key.endswith("accuracy") else tolerance * np.abs(value).max()
                assert np.abs(ours[key] - value).max() <= limit, (key, ours[key], value)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    if not JaxProcess.available():
        pytest.skip("jax is not installed")
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def one(runs) -> str:
    """A run on one device, and beside it, by the same process, on eight with five steps in one program."""
    runs.finish(runs.start(("one", dict(devices=1)), ("eight", dict(scan=5)), devices=8))
    return "one"


def test_eight_devices_train_as_one(runs, one):
    """Augmentation, batch normalisation, metrics and a last batch that they do not divide too."""
    runs.assert_alike("eight", one)
    told = [json.loads((runs.folder / name / "speed.json").read_text())["devices"] for name in (one, "eight")]
    assert told == [1, 8]


@pytest.mark.slow
def test_two_processes_train_as_one_device(runs, one):
    """Only the first one speaks and writes, and its report is the whole one."""
    each = (dict(whole=True), dict(whole=True, output_dir=str(runs.folder / "not made")))
    (first, _), (second, _) = runs.finish(*runs.pair("two", *each))
    runs.assert_alike("two", one)
    assert "8 CPU devices of 2 processes" in first
    assert all(line.startswith("[Gloo]") for line in second.splitlines())
    assert json.loads((runs.folder / "two.0.json").read_text())["models"].keys() == {"keras", "folded"}
    assert json.loads((runs.folder / "two.1.json").read_text()) == {}
    assert not (runs.folder / "not made").exists()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on(killed, runs, one):
    """To the bit on the same devices, and alike on one, on eight of one process, and by two processes from one."""
    name, flags = f"killed {killed}", dict(checkpoint_minutes=0.0)
    if not (runs.folder / "whole").exists():
        runs.finish(*runs.pair("whole", **flags))
    processes = runs.pair(name, **flags)
    while not list((runs.folder / name).glob("checkpoints/step_0001_*5.keras")):
        assert processes[killed].poll() is None, processes[killed].communicate()
        time.sleep(0.05)
    processes[killed].send_signal(signal.SIGKILL)
    started = time.monotonic()
    _, said = processes[1 - killed].communicate(timeout=ENDS_SECONDS)
    assert time.monotonic() - started < ENDS_SECONDS
    assert processes[1 - killed].returncode != 0
    assert "another process of this run is gone" in said or "another task died" in said
    processes[killed].communicate()
    for other in ("on one", "on eight"):
        shutil.copytree(runs.folder / name, runs.folder / f"{name} {other}")
    (told, _), _ = runs.finish(*runs.pair(name, **flags))
    assert "resuming after 1 of 2 epochs and" in told
    runs.assert_alike(name, "whole", tolerance=0)
    runs.finish(
        runs.start((f"{name} on one", dict(devices=1)), (f"{name} on eight", dict(devices=8)), devices=8),
    )
    for other in ("on one", "on eight"):
        runs.assert_alike(f"{name} {other}", one)


@pytest.mark.slow
def test_processes_that_differ_do_not_start(runs):
    said = runs.finish(*runs.pair("differ", {}, dict(learning_rate=0.2)), status=2)
    line = (
        "kzoo: process 1 differs from process 0: learning_rate 0.1 -> 0.2; start all processes with the same command, "
        "code and data\n"
    )
    assert all(error.endswith(line) for _, error in said)
    assert not (runs.folder / "differ").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        dict(mixup=0.2, cutmix=1.0, augmentation=["resized_crop", "rotate", "elastic", "rand", "erase"]),
        dict(ema=0.9, accumulate=2, clip_norm=1.0, label_smoothing=0.1),
        dict(balanced_sampling=True, class_weights="balanced", optimizer="adamw", learning_rate=1e-3),
        dict(weights="start.keras", freeze_epochs=1),
    ],
    ids=["augmentation", "averages", "balance", "freezing"],
)
def test_everything_is_over_the_whole_batch(flags, runs, request):
    name = request.node.callspec.id
    if "weights" in flags:
        flags = flags | dict(weights=str(runs.folder / flags["weights"]))
        options = dict(input_shape=(8, 8, 3), num_classes=10, depths=(1,), widths=(4,))
        kzoo.build("cifar_resnet20", **options).save(flags["weights"])
    runs.finish(runs.start((name, dict(devices=1, **flags)), (f"{name} 4", dict(devices=4, **flags)), devices=4))
    # activations that are nearly zero fall on the other side, and Adam divides by roots of what is nearly nothing
    runs.assert_alike(f"{name} 4", name, tolerance=3e-3)


@pytest.mark.slow
def test_segmentation_is_over_the_whole_batch(runs):
    """Dice, weights of classes and dropout too."""
    scenes, rng = runs.folder / "scenes", np.random.default_rng(0)
    for number in range(24):
        mask = np.zeros((16, 24), "uint8")
        mask[:, : rng.integers(3, 20)] = 5
        for kind, array in (("images", rng.integers(0, 256, (16, 24, 3), "uint8")), ("masks", mask)):
            (scenes / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(scenes / kind / f"{number}.png")
    flags = dict(model="unet_padded", dataset=str(scenes), model_options=dict(widths=(4, 8), dropout=0.2))
    flags |= dict(
        image_size=None, batch_size=4, class_names=("ground", "thing"), mask_values=(0, 5), crop_size=(16, 16)
    )
    flags |= dict(dice_weight=1.0, class_weights="log", augmentation=("flip", "elastic"))
    runs.finish(runs.start(("masks", dict(devices=1) | flags), ("masks 2", dict(devices=2) | flags), devices=2))
    runs.assert_alike("masks 2", "masks", tolerance=1e-4)
    assert (runs.folder / "masks 2" / "sheets" / "epoch_0002.png").exists()


@pytest.mark.slow
def test_two_replicas_of_tensorflow_train_as_one_device(runs):
    """Also where they do not divide the last batch; the file says nothing of replicas."""
    flags = dict(batch_size=426, seed=1)  # six steps, and a batch of validation of 159
    runs.finish(runs.start(("tf one", dict(replicas=2, devices=1) | flags)))
    runs.finish(runs.start(("tf two", dict(replicas=2) | flags)))
    runs.assert_alike("tf two", "tf one", tolerance=2e-3)  # variances are differences of squares, and betas near 0
    model = keras.saving.load_model(runs.folder / "tf two" / "checkpoints" / "epoch_0002.keras")
    assert json.loads((runs.folder / "tf two" / "speed.json").read_text())["training_programs"] == 1
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert [layer.synchronized for layer in norms] == [False] * len(norms)
    goes_on = runs.folder / "tf goes on"
    shutil.copytree(runs.folder / "tf one", goes_on)
    for path in goes_on.glob("checkpoints/*_0002.keras"):
        path.unlink()
    ((told, _),) = runs.finish(runs.start(("tf goes on", dict(replicas=2) | flags)))
    assert "resuming after 1 of 2 epochs" in told
    runs.assert_alike("tf goes on", "tf one", tolerance=2e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(devices="npu"), r"^devices='npu' is not accepted; use one of 'auto', 'cpu', 'gpu', 'tpu'$"),
        (dict(devices=0), r"^devices=0 must be at least 1$"),
        (dict(coordinator="host"), r"^coordinator='host' must be HOST:PORT, such as 10\.0\.0\.1:1234, or 'auto'$"),
        (dict(coordinator="host:70000"), r"must be HOST:PORT"),
        (dict(coordinator=":123"), r"must be HOST:PORT"),
        (dict(coordinator="host:123"), r"goes with both processes and process_id$"),
        (dict(coordinator="host:123", processes=2, process_id=2), r"^process_id=2 must be 0 to 1, one of 2$"),
        (dict(coordinator="host:123", processes=0, process_id=0), r"^processes=0 must be at least 1$"),
        (dict(processes=2), r"^processes: with coordinator=HOST:PORT, the address of process 0$"),
        (dict(coordinator="auto", process_id=0), r"^process_id: with coordinator=HOST:PORT"),
    ],
)
def test_words_that_cannot_be_are_refused(options, message):
    with pytest.raises(InvalidValueError, match=message):
        Hardware(**options)


@pytest.mark.parametrize("wanted", ["gpu", "tpu", 2])
def test_devices_that_are_not_there_are_told_before_data_are_read(wanted, tmp_path):
    recipe = make_recipe("run", "cifar_resnet20", str(tmp_path / "no data"), devices=wanted, output_dir=tmp_path)
    with pytest.raises(InvalidValueError, match=rf"^devices={wanted!r}: no such device; there are cpu:0$"):
        train(recipe)


@pytest.mark.parametrize(("batch", "near"), [(30, "24 or 32"), (6, "8")])
def test_a_batch_that_devices_do_not_divide_is_told(batch, near):
    message = rf"^batch_size={batch} is not a multiple of the 8 devices; {near} is$"
    with pytest.raises(InvalidValueError, match=message):
        check_batch(batch, 8)


def test_auto_takes_as_many_as_divide_a_batch(monkeypatch):
    monkeypatch.setattr(devices, "devices_there", lambda kind=None: [f"gpu:{number}" for number in range(8)])
    monkeypatch.setattr(devices, "_with", lambda names: Devices(tuple(names)))
    found = [len(choose_devices(Hardware(), batch, Hosts()).names) for batch in (256, 12, 7, 1)]
    assert found == [8, 6, 7, 1]
    with pytest.raises(InvalidValueError, match="not a multiple of the 8 devices"):
        choose_devices(Hardware(devices="gpu"), 12, Hosts())


def test_what_several_devices_cannot_do_is_told():
    recipe = make_recipe("run", "cifar_resnet20", "digits", minutes=3.0, epochs=9)
    for many in (Devices(("cpu:0", "cpu:1")), Devices(("cpu:0",), hosts=Hosts(0, 2))):
        with pytest.raises(InvalidValueError, match=r"^minutes=3 is measured on the devices of one process"):
            check_recipe(recipe, many)
    check_recipe(recipe, Devices(("cpu:0",)))
    with pytest.raises(InvalidValueError, match=r"^jit_compile='true' is for one device under TensorFlow"):
        check_recipe(recipe.replace(minutes=None, jit_compile="true"), Devices(("cpu:0", "cpu:1")))


def test_pictures_are_not_looked_at_where_devices_are_missing(tmp_path, capsys):
    (tmp_path / "photos").mkdir()  # which holds none
    line = fails(capsys, "train", "cifar_resnet20", f"{tmp_path}/photos", "--devices", "7")
    assert line == "kzoo: devices=7: no such device; there are cpu:0\n"


def test_several_processes_need_jax():
    hardware = Hardware(coordinator="127.0.0.1:1234", processes=2, process_id=0)
    with pytest.raises(BackendError, match="needs KERAS_BACKEND=jax, and it is 'tensorflow'"), joined(hardware):
        pass


def test_what_differs_between_processes_is_named(monkeypatch):
    utilities = pytest.importorskip("jax.experimental.multihost_utils")
    recipe = make_recipe("run", "cifar_resnet20", "digits", devices=8, output_dir=Path("a"), data_dir="a")
    other = recipe.replace(epochs=3, output_dir=Path("b"), data_dir="b", resume=False)
    own = dict(coordinator="h:1", processes=2)
    theirs, mine = (facts_of(each.replace(**own, process_id=i)) for i, each in enumerate((recipe, other)))
    parted = []
    monkeypatch.setattr(Hosts, "part", lambda self: parted.append(self.number))

    def gather(array):  # of two processes, this being the second
        first = json.dumps(theirs).encode()
        if array.shape == ():
            return np.array([len(first), array])
        return np.stack([np.frombuffer(first.ljust(len(array)), "uint8"), array])

    monkeypatch.setattr(utilities, "process_allgather", gather)
    with pytest.raises(InvalidValueError, match=r"^process 1 differs from process 0: epochs 30 -> 3; start all "):
        Hosts(1, 2).agree(mine)
    assert parted == [1]
    mine = theirs | {"code of kzoo": "0123456789"}
    changed = rf"^process 1 differs from process 0: code of kzoo '{theirs['code of kzoo']}' -> '0123456789'; start"
    with pytest.raises(InvalidValueError, match=changed):
        Hosts(1, 2).agree(mine)
    mine = theirs
    Hosts(1, 2).agree(mine)


def test_code_is_compared_by_what_it_says(tmp_path, monkeypatch):
    package = tmp_path / "kzoo"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(kzoo, "__file__", str(package / "__init__.py"))
    before = hosts.code_hash()
    (package / "__init__.py").write_text("changed = True\n")
    assert hosts.code_hash() != before


def test_an_address_that_cannot_be_is_told():
    with pytest.raises(InvalidValueError, match=r"^coordinator='no\.such\.host\.invalid:1': no host of that name"):
        hosts._check_address("no.such.host.invalid:1", mine=False)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        hosts._check_address(address, mine=False)
        with pytest.raises(InvalidValueError, match=r"the port cannot be opened \(Address already in use\)$"):
            hosts._check_address(address, mine=True)


@pytest.mark.parametrize(
    ("number", "message"),
    [(0, "not all processes of the run came together within"), (1, "process 0 was not at 127.0.0.1:1234 within")],
)
def test_nobody_is_waited_for_for_ever(number, message, monkeypatch, capsys):
    jax = pytest.importorskip("jax")
    left = threading.Event()
    monkeypatch.setattr(hosts, "MEETING_SECONDS", 0.01)
    monkeypatch.setattr(hosts, "_check_address", lambda *_: None)
    monkeypatch.setattr(hosts, "_leave", lambda status: status == 2 and left.set())
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: left.wait(10))
    hosts._meet(Hardware(coordinator="127.0.0.1:1234", processes=2, process_id=number))
    assert left.is_set()
    assert capsys.readouterr().err.startswith(f"kzoo: {message}")


@pytest.mark.parametrize(
    ("process", "missing"), [(0, "2 other processes of the run"), (1, "process 0 at 127.0.0.1:1234")]
)
def test_who_waits_says_for_whom(process, missing, monkeypatch, capsys):
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(hosts, "TOLD_SECONDS", 0.01)
    monkeypatch.setattr(hosts, "_check_address", lambda *_: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: time.sleep(0.3))
    hosts._meet(Hardware(coordinator="127.0.0.1:1234", processes=3, process_id=process))
    assert capsys.readouterr().err == f"kzoo: process {process} waits for {missing}, for up to 300 s\n"


def test_a_job_that_jax_does_not_find_is_told(monkeypatch):
    jax = pytest.importorskip("jax")

    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(
        InvalidValueError, match=r"^coordinator='auto': JAX finds no TPU slice and .*; give HOST:PORT$"
    ):
        hosts._meet(Hardware(coordinator="auto"))


def test_a_process_that_lost_the_others_says_so(monkeypatch):
    jax = pytest.importorskip("jax")
    ends = []
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(hosts, "_meet", lambda hardware: None)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts.atexit, "register", lambda function, status: ends.append((function, status)))
    hardware = Hardware(coordinator="auto")
    told = r"^another process of this run is gone, .* goes on from the last checkpoint$"
    with pytest.raises(KzooError, match=told), joined(hardware):
        raise ValueError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")
    with pytest.raises(ZeroDivisionError), joined(hardware):  # its own mistake stays what it is
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), joined(hardware):
        raise KeyboardInterrupt
    assert ends == [(hosts._leave, 2), (hosts._leave, 2), (hosts._leave, 130)]


@pytest.mark.parametrize("auxiliary", [False, True])
def test_metrics_are_there_before_the_first_batch(auxiliary):
    """As `fit` on several devices needs them, of a model for any size and of one with auxiliary heads."""
    image = keras.Input((None, None, 3))
    logits = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(image))
    outputs = {"head": logits, "other": keras.layers.Dense(4)(logits)} if auxiliary else logits
    model = AuxiliaryHeads(image, outputs, auxiliary_weight=0.4) if auxiliary else keras.Model(image, outputs)
    model.compile("sgd", ClassificationLoss(), metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")])
    images, targets = np.ones((5, 8, 6, 3), "float32"), np.eye(4, dtype="float32")[[0, 1, 2, 3, 0]]
    build_metrics(model, images, targets)
    made = [variable.path for variable in model.metrics_variables]
    assert len(made) == 4  # sums and counts of loss and accuracy
    assert not any(np.any(variable.numpy()) for variable in model.metrics_variables)
    model.evaluate(images, targets, verbose=0)
    assert [variable.path for variable in model.metrics_variables] == made
