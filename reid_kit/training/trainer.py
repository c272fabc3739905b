"""The training loop: one pass of the sampler an epoch, everything random a function of (seed, iteration)."""

import inspect
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reid_kit.distributed import rank, sum_over_processes, world_size
from reid_kit.errors import NonFiniteError
from reid_kit.losses.base import without_waits
from reid_kit.losses.weighted_sum import WeightedSum
from reid_kit.training.hard_identities import HardIdentities
from reid_kit.training.moving_average import MovingAverage
from reid_kit.training.progress import EpochProgress
from reid_kit.training.run_folder import RunFolder
from reid_kit.training.schedule import Schedule

RECORD_EVERY = 10  # iterations between two lines of metrics.jsonl
# Running statistics are equal on all ranks and are not sent around. The option has a new name from torch 2.13 on.
FORWARD = "forward_sync_buffers"
NO_BUFFERS = FORWARD if FORWARD in inspect.signature(DistributedDataParallel).parameters else "broadcast_buffers"


@dataclass(frozen=True)
class Recipe:
    """How long and how. `ema` and `clip_norm` are off at 0; `checkpoint_every` counts iterations; 0: epochs."""

    epochs: int
    seed: int = 0
    autocast: bool = False
    ema: float = 0.0
    clip_norm: float = 0.0
    eval_every: int = 10
    checkpoint_every: int = 0
    freeze_epochs: int = 0  # at the start, in which the model's backbone stays as it is


@dataclass(frozen=True)
class Unread:
    """What a step leaves on the device: loss, terms and active fractions, and whether all embeddings are finite."""

    iteration: int
    indices: Tensor
    shown: Tensor
    lr: float


class TrainingStep(nn.Module):
    """Images and labels to the objective and its terms: the one forward that several processes share."""

    def __init__(self, model: nn.Module, objective: WeightedSum, autocast: bool):
        super().__init__()
        self.model, self.objective, self.autocast = model, objective, autocast

    def forward(self, images: Tensor, labels: Tensor, *cameras: Tensor):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.autocast):
            features = self.model(images, *cameras)
        total, values = self.objective(features, labels)
        return total, values, features.metric


class Trainer:
    """Trains `model` on `objective` and keeps the run folder.

    What a step has to show stays on the device until the RECORD_EVERYth step asks for it: a GPU that is waited for
    runs dry. A loss that is not finite is found then at the latest, and before anything is written or tested.

    Args:
        loader: yields batches with `images` (B, 3, H, W) uint8, `labels` (B,), `indices` (B,) into `files`.
        sampler: has `set_epoch(epoch, start)` and `len()`, the batches of an epoch.
        test: model -> the metrics of the test set; "mAP" among them decides which weights are the best.
        save: (path, model, training state or None, metrics) -> writes a checkpoint.
        cameras: of the files, for a model that takes their numbers beside the images.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: WeightedSum,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        loader,
        sampler,
        files: Sequence[Path],
        test: Callable[[nn.Module], dict[str, float]],
        save: Callable[[Path, nn.Module, dict | None, dict], None],
        run: RunFolder | None,
        recipe: Recipe,
        device: torch.device,
        hard_identities: HardIdentities | None = None,
        cameras: Sequence[int] | None = None,
    ):
        self.model, self.objective, self.optimizer, self.schedule = model, objective, optimizer, schedule
        self.loader, self.sampler, self.files = loader, sampler, files
        self.test, self.save, self.run, self.recipe, self.device = test, save, run, recipe, device
        self.hard_identities = hard_identities
        self.cameras = None if cameras is None else torch.tensor(cameras)
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.frozen = False
        self.ema = MovingAverage(model, recipe.ema) if recipe.ema else None
        self.step = TrainingStep(model, objective, recipe.autocast)
        self.read_every = 1 if device.type == "cpu" else RECORD_EVERY  # steps; a CPU has done what it was asked
        self.unread: list[Unread] = []
        self.progress: EpochProgress | None = None
        self.epoch = self.position = 0  # epochs done; batches done of the current one
        self.metrics: dict[str, float] = {}
        self.best_mAP = -1.0
        self.seconds = 0.0

    @property
    def iteration(self) -> int:
        return self.epoch * len(self.sampler) + self.position

    @property
    def tested_model(self) -> nn.Module:
        return self.ema.module if self.ema else self.model

    def fit(self) -> None:
        """Trains to the last epoch, or to Ctrl-C, which leaves a checkpoint of the iteration it came at. A test is
        broken off at once; the resumed run does it anew.

        A new run begins with a checkpoint, so that it can be resumed whenever it ends, and a full disk shows at once.
        """
        if self.run:
            self.run.open()
            if not self.run.last.exists():
                self.checkpoint()
            self.run.write_config()
        if world_size() > 1:  # static graph: parameters that no loss term reaches are no error
            self.step = DistributedDataParallel(self.step, static_graph=True, **{NO_BUFFERS: False})
        with Stop().listening() as stop:
            while self.epoch < self.recipe.epochs:
                self.train_epoch(stop)
                if stop.asked:
                    self.checkpoint()
                    raise KeyboardInterrupt
                self.end_epoch(stop)
                if stop.asked:
                    raise KeyboardInterrupt

    def train_epoch(self, stop: "Stop") -> None:
        if self.hard_identities is not None:
            self.sampler.set_hard_identities(self.hard_identities.pool)
        self.sampler.set_epoch(self.epoch, self.position)
        if self.position == len(self.sampler):
            return
        self.step.train()
        if self.recipe.freeze_epochs:
            self.freeze(self.epoch < self.recipe.freeze_epochs)
        begun, batches = time.perf_counter(), len(self.sampler)
        title = f"epoch {self.epoch + 1}/{self.recipe.epochs}"
        self.progress = EpochProgress(title, self.position, batches, batches * (self.recipe.epochs - self.epoch - 1))
        for batch in self.loader:
            self.train_batch(batch)
            self.position += 1
            self.progress.update(len(batch.labels) * world_size())
            every = self.recipe.checkpoint_every
            if every and self.iteration % every == 0 and self.position < batches:
                self.checkpoint()
            if stop.asked:
                break
        self.read()
        self.seconds += time.perf_counter() - begun
        self.log(self.progress.close())

    def freeze(self, frozen: bool) -> None:
        """Holds the backbone's weights and the statistics of its norms, or lets them go."""
        self.frozen = frozen
        self.model.backbone.train(not frozen)
        if world_size() == 1:  # where gradients are shared, all have one to the end, and those here are dropped
            self.model.backbone.requires_grad_(not frozen)

    def train_batch(self, batch) -> None:
        """One step of the optimizer."""
        seed_generators((self.recipe.seed * 1_000_003 + self.iteration) * world_size() + rank(), self.device)
        factor = self.schedule(self.iteration)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates):
            group["lr"] = rate * factor
        images = batch.images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        labels = batch.labels.to(self.device, non_blocking=True)
        cameras = [] if self.cameras is None else [self.cameras[batch.indices].to(self.device, non_blocking=True)]
        try:
            with nullcontext() if self.device.type == "cpu" else without_waits(batch.labels):
                total, terms, embeddings = self.step(images, labels, *cameras)
        except NonFiniteError as error:
            raise self.not_finite(self.iteration, batch.indices, str(error)) from error
        means = [*self.objective.active_fractions, embeddings.detach().isfinite().all()]
        means = sum_over_processes(torch.stack([value.to(total) for value in means])) / world_size()
        shown = torch.cat([torch.stack([total, *terms]).detach(), means])
        self.unread.append(Unread(self.iteration, batch.indices, shown, self.optimizer.param_groups[0]["lr"]))
        if (self.iteration + 1) % self.read_every == 0:
            self.read()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self.frozen:
            for parameter in self.model.backbone.parameters():
                parameter.grad = None
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.step.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        if self.ema:
            self.ema.update(self.model)
        if self.hard_identities is not None:
            self.hard_identities.observe(embeddings, labels)

    def read(self) -> None:
        """Fetches what the last steps have to show, at once, and logs it.

        Raises:
            NonFiniteError: one of them had a loss or embeddings that are not finite.
        """
        steps, self.unread = self.unread, []
        names = ["loss", *self.objective.names, *(f"{name}_active" for name in self.objective.names)]
        for step, (*shown, finite) in zip(steps, torch.stack([step.shown for step in steps]).tolist() if steps else ()):
            values = dict(zip(names, shown))
            if not (math.isfinite(values["loss"]) and finite == 1):
                what = ", ".join(f"{name} {value:g}" for name, value in values.items())
                what += "" if finite == 1 else "; embeddings hold NaN or infinity"
                raise self.not_finite(step.iteration, step.indices, what)
            values["lr"] = step.lr
            if self.progress is not None:
                self.progress.add(values)
            if self.run and (step.iteration + 1) % RECORD_EVERY == 0:
                self.run.record("train", step.iteration + 1, values)

    def not_finite(self, iteration: int, indices: Tensor, what: str) -> NonFiniteError:
        files = "\n  ".join(str(self.files[index]) for index in indices.tolist())
        return NonFiniteError(
            f"epoch {self.epoch + 1}, iteration {iteration}: the loss is not finite ({what}). The checkpoints are "
            f"from before it. A lower OPTIMIZER.LR, SCHEDULE.WARMUP_EPOCHS or OPTIMIZER.CLIP_NORM usually mends it. "
            f"The batch:\n  {files}"
        )

    def end_epoch(self, stop: "Stop") -> None:
        last = self.epoch + 1 == self.recipe.epochs
        best = False
        if last or (self.epoch + 1) % self.recipe.eval_every == 0:
            self.checkpoint()  # so that a run killed while it is tested has the epoch's weights
            with stop.at_once():
                self.metrics = self.test(self.tested_model)
            self.log("  ".join(f"{name} {100 * value:.1f}" for name, value in self.metrics.items()))
            if self.run:
                self.run.record("test", self.iteration, self.metrics)
            best = self.metrics["mAP"] > self.best_mAP
            self.best_mAP = max(self.best_mAP, self.metrics["mAP"])
        self.objective.end_epoch()
        if self.hard_identities is not None:
            self.hard_identities.end_epoch()
        self.epoch, self.position = self.epoch + 1, 0
        if best and self.run:
            self.save(self.run.best, self.tested_model, None, self.metrics)
        self.checkpoint()

    def log(self, line: str) -> None:
        if rank() == 0:
            print(line, flush=True)
        if self.run:
            self.run.log(line)

    def checkpoint(self) -> None:
        """Writes last.pt: all that a resumed run needs to end with the same weights."""
        self.read()  # raises before weights that a loss has spoilt are kept
        if self.run:
            self.save(self.run.last, self.tested_model, self.state_dict(), self.metrics)

    def state_dict(self) -> dict:
        return {
            "epoch": self.epoch,
            "position": self.position,
            "seconds": self.seconds,
            "metrics": self.metrics,
            "best_mAP": self.best_mAP,
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "hard_identities": self.hard_identities.state_dict() if self.hard_identities else None,
            "metrics_length": self.run.length() if self.run else 0,
        }

    def load_state_dict(self, state: dict) -> None:
        """Takes up a run where `state_dict` left it."""
        self.epoch, self.position, self.seconds = state["epoch"], state["position"], state["seconds"]
        self.metrics, self.best_mAP = state["metrics"], state["best_mAP"]
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        if self.hard_identities:
            self.hard_identities.load_state_dict(state["hard_identities"])
        if self.run:
            self.run.cut(state.get("metrics_length", self.run.length()))


def seed_generators(seed: int, device: torch.device) -> None:
    """Those that a step draws from: torch.manual_seed looks for all devices, and takes 100 times as long."""
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


class Stop:
    """What Ctrl-C and SIGTERM do while a run goes on: the first asks it to stop after its current batch, which leaves a
    checkpoint, the second ends it at once. Within `at_once` the first ends it too, as the checkpoint is there already.
    """

    def __init__(self):
        self.asked = False
        self.deferred = True

    def ask(self, number, frame) -> None:
        if self.asked or not self.deferred:
            raise KeyboardInterrupt
        self.asked = True
        if os.getpid() == self.process:  # what is forked inherits the handler; print may not nest in one
            os.write(2, b"\nstopping after this batch; once more ends it at once\n")

    @contextmanager
    def at_once(self):
        self.deferred = False
        try:
            yield
        finally:
            self.deferred = True

    @contextmanager
    def listening(self):
        """With several processes signals keep their meaning, since each process would stop at another batch."""
        if world_size() > 1:
            yield self
            return
        self.process = os.getpid()
        before = {name: signal.signal(name, self.ask) for name in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
