"""The training loop: data, steps, evaluations, checkpoints, for either stage under any mesh.

The same command resumes. A run ends by reaching its last step (exit code 0), by SIGTERM (saved, exit
code 75: start the same command again) or by a loss that is not finite (an error naming the step and
the pictures of its batch). Several processes do all of it together; SIGTERM to one is SIGTERM to all.
"""

from __future__ import annotations

import contextlib
import functools
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from var_jax.data import pipeline
from var_jax.data.damage import BAD_PICTURES_FILE, BadPictures
from var_jax.data.report import notes
from var_jax.data.sources import SPLITS
from var_jax.errors import InputError
from var_jax.formats.atomic import is_about, local_target, unwritable
from var_jax.formats.bucket import in_bucket, open_folder
from var_jax.model_directory import Model
from var_jax.models.parameters import Params, flatten
from var_jax.models.reproducible import new_key, own_settings
from var_jax.parallel.mesh import batch_part, batch_sharding, check_batch, make_mesh, replicated
from var_jax.parallel.processes import STOPPED, from_first
from var_jax.parallel.rules import placed, table
from var_jax.training import build, fields
from var_jax.training.adversary import Adversary
from var_jax.training.checkpoints import Checkpoints
from var_jax.training.config import claim_directory
from var_jax.training.goodput import Spent, in_words, summed
from var_jax.training.lock import held
from var_jax.training.profiling import Window
from var_jax.training.progressive import ScalePrefix
from var_jax.training.reporting import Clock, Reporter, duration
from var_jax.training.step import TrainState
from var_jax.training.task import Task
from var_jax.training_directory import has_checkpoint

FINISHED, PREEMPTED = 0, STOPPED


def train(config: ml_collections.ConfigDict, workdir: str, profile: str | None = None) -> int:
    """Trains until the last step of `config`, from where `workdir` stands; returns the exit code.

    JAX's profiler looks at the steps "FIRST:LAST" of `profile`.

    Raises:
      InputError: for a config, data or directory that cannot be, or that can no longer be written.
    """
    try:
        return Run(config, open_folder(workdir), profile=profile).go()
    except OSError as error:
        if in_bucket(workdir) or not is_about(error, local_target(workdir), local_target(workdir)):
            raise
        raise InputError(f"{unwritable(workdir, error)}; the same command goes on from the last checkpoint") from error


def total_steps(config: ml_collections.ConfigDict, examples: int) -> int:
    """Steps of the whole training: `steps`, or `epochs` of ceil(examples / batch), rounded up.

    Raises:
      InputError: if the config sets both or neither, or these are too many.
    """
    if (config.steps is None) == (config.epochs is None):
        raise InputError("config: set one of steps and epochs, and the other to None")
    if config.steps is not None:
        return config.steps
    epoch = pipeline.steps_per_epoch(examples, config.batch_size)
    steps = math.ceil(epoch * Fraction(str(config.epochs)))  # 1.1 epochs of 10 steps are 11, as a decimal number
    if steps > fields.MOST_STEPS:
        raise InputError(f"config epochs is {config.epochs}: {steps} steps, expected {fields.MOST_STEPS} at most")
    return steps


def _due(step: int, every: int) -> bool:
    """Whether a step is one of every so many; 0 is never."""
    return every > 0 and step % every == 0


class Run:
    """One run of one config in one directory.

    A run is set up in this order, and nothing is written before everything that a config can have wrong was looked at:
    devices, data, the stage's task, the training step, arrays that are not learned, starting weights; then the
    directory is claimed and locked, its log and checkpoints are opened, and the newest checkpoint is restored or a
    state drawn.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: epath.Path,
        devices: Sequence[jax.Device] | None = None,
        profile: str | None = None,
    ) -> None:
        """Builds everything on all devices (or the given ones) and restores the newest checkpoint, or starts anew."""
        fields.check(config)
        self.config, self.workdir, self._spent, self._stopping = config, workdir, Spent(), False
        self._window = Window(profile, workdir)
        self.mesh = make_mesh(**config.mesh, devices=devices)
        self._part = batch_part(self.mesh)
        self.sources = build.make_sources(config)
        share = config.data.bad_share
        self._bad = {name: BadPictures(source, name, share) for name, source in zip(SPLITS, self.sources, strict=True)}
        self.total = total_steps(config, len(self.sources[0]))
        tokenizer = build.read_tokenizer(config)
        self.task = build.make_task(config, self.mesh, self.sources[0], tokenizer)
        self.program = build.make_program(config, self.mesh, self.task, self.total)
        self._scales_at = build.make_progressive(config, self.task.config.pyramid, self.total)
        fixed, shapes = build.fixed_arrays(config, tokenizer), self.program.shapes
        self._evaluates = config.evaluate_pictures > 0
        if self._evaluates:
            self._try_evaluation(fixed, shapes)
        weights = {} if has_checkpoint(workdir) else build.starting_weights(config, shapes.params)
        about = self.task.about() | {"total_steps": self.total}
        from_first("claim", lambda: claim_directory(workdir, config, about))
        with contextlib.ExitStack() as opened:
            self._open(opened, tokenizer)
            for line in notes(*self.sources):
                self.reporter.say(line)
            self.fixed = jax.device_put(fixed, replicated(self.mesh))
            if self.checkpoints.latest is None:
                self.state = self._drawn(shapes, weights)
            else:
                self.state = self.checkpoints.restore(shapes)
                self.reporter.say(f"resumed at step {int(self.state.step)} of {self.total}")
            self._opened = opened.pop_all()

    def _try_evaluation(self, fixed: Params, shapes: TrainState) -> None:
        """Goes through an evaluation by shapes alone, so that one that cannot be is refused before the first step."""
        size = self.config.evaluate_batch_size
        if not len(self.sources[1]):
            raise InputError("config evaluate_pictures: there are no validation pictures; set it to 0, or add some")
        check_batch(self.mesh, size, "config evaluate_batch_size")
        batch = build.batch_shapes(self.task, size, self.sources[1].holds)
        batch = placed(batch | {"mask": jax.ShapeDtypeStruct((size,), jnp.float32)}, batch_sharding(self.mesh))
        with jax.set_mesh(self.mesh):
            _evaluation(self.task, self.mesh).eval_shape(shapes.inference_params, fixed, batch)

    def _open(self, opened: contextlib.ExitStack, tokenizer: Model | None) -> None:
        """The directory's lock, log and checkpoints, to be closed with `opened`."""
        leads = jax.process_index() == 0
        killed = opened.enter_context(held(self.workdir)) if leads else None
        if tokenizer is not None:
            build.keep_tokenizer(tokenizer, self.workdir, self.config.tokenizer)
        self.reporter = Reporter(self.workdir, active=leads)
        opened.callback(self.reporter.close)
        if killed:
            self.reporter.say(f"the run before ({killed}) was killed")
        self.checkpoints = Checkpoints(self.workdir, self.config.keep_checkpoints, self.reporter.say)
        opened.callback(self.checkpoints.close)
        opened.callback(self._window.close)

    def _drawn(self, shapes: TrainState, weights: Params) -> TrainState:
        """A fresh state, with `weights` of another model in the place of drawn ones."""
        config = self.config
        devices = f"{self.mesh.size} {jax.devices()[0].device_kind}"
        self.reporter.say(
            f"{config.stage}, {len(self.sources[0])} pictures, {self.total} steps of "
            f"{config.batch_size}, on {devices} ({', '.join(f'{k} {v}' for k, v in self.mesh.shape.items())})"
        )
        if jax.process_index() == 0:
            (self.workdir / "sharding.txt").write_text(table(shapes) + "\n")
        state = self.program.first_state()
        if weights:
            drawn = ["/".join(path) for path in flatten(shapes.params) if path not in weights]
            self.reporter.say(f"started from {config.init_from}; freshly drawn: {', '.join(drawn) or 'nothing'}")
            return build.start_from(weights, state)
        return self._init_codebook(state) if self.task.warm_batches else state

    def _init_codebook(self, state: TrainState) -> TrainState:
        """The fresh state with a codebook made of the first pictures."""
        batches = self.task.warm_batches
        with jax.set_mesh(self.mesh), contextlib.closing(self._batches(0)) as given:
            pictures = [self._checked(next(given), "train")["images"] for _ in range(batches)]
            key = jax.random.fold_in(new_key(self.config.seed), 2)
            init = jax.jit(own_settings()(self.task.init_codebook), out_shardings=self.program.places.params)
            params = init(state.params, jnp.concatenate(pictures), key)
        ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
        self.reporter.say(f"the first codebook is made of {batches * self.config.batch_size} pictures")
        return state._replace(params=params, ema=ema)

    def go(self) -> int:
        """The loop."""
        # Of several processes any one may get SIGTERM: JAX hears it, and agrees on the step to stop at.
        alone = jax.process_count() == 1
        before = signal.signal(signal.SIGTERM, self._stop) if alone else None
        try:
            with jax.set_mesh(self.mesh), contextlib.closing(self._batches(int(self.state.step))) as batches:
                return self._loop(batches)
        finally:
            if alone:
                signal.signal(signal.SIGTERM, before)
            self.close()

    def close(self) -> None:
        """Waits until everything is written, and lets go of the directory; the end of a run that `go` does not end."""
        self._opened.close()

    def _stop(self, *_: Any) -> None:
        self._stopping = True

    def _loop(self, batches: Iterator[dict[str, np.ndarray]]) -> int:
        config, step = self.config, int(self.state.step)
        clock, taking_part, on = Clock(step, self.total), (None, None), self._spent.on
        self._spent.begin(step)
        # JAX stops all at the highest number that one has come with so far, plus 1. Steps before the first one here are
        # gone through too, or SIGTERM that came before the loop would ask for a number that never comes.
        if jax.process_count() > 1 and any(self._stops_at(number) for number in range(1, step + 1)):
            return self._stopped(step)
        while step < self.total:
            waited = time.monotonic()
            with on("data", step + 1):
                batch = self._checked(next(batches), "train")
            clock.waiting += time.monotonic() - waited
            before, taking_part = taking_part, self._taking_part(step, taking_part)
            self._window.before(step + 1)
            new = before != taking_part or step == self._spent.from_step
            with on("compile" if new else "step", step + 1), jax.profiler.StepTraceAnnotation("train", step_num=step):
                self.state, metrics = self.program(self.state, self.fixed, batch, *taking_part)
            step += 1
            self._window.after(step, metrics)
            last = step == self.total
            if _due(step, config.report_every) or last:
                with on("step", step):
                    self._report(step, metrics, clock)
            figures = None
            if self._evaluates and _due(step, config.evaluate_every) and not last:
                with on("evaluation", step):
                    figures = self.evaluate(step)
                clock.restart(step)
            stopping = self._stops_at(step)
            if _due(step, config.checkpoint_every) or last or stopping:
                with on("checkpoint", step):
                    self._check_finite()
                    self.checkpoints.save(self.state, step, figures)
                clock.restart(step)
            if stopping and not last:
                self._saved(step)
                return self._stopped(step)
        self._evaluate_last(step)
        self._saved(step)
        if step > self._spent.from_step:
            total = summed(self.reporter.lines())
            self.reporter.metrics(step, "goodput", {}, total)
            self.reporter.say(in_words(total))
        self.reporter.say(f"finished: {self.total} steps, in {self.workdir}")
        return FINISHED

    def _evaluate_last(self, step: int) -> None:
        """The last evaluation, once the last checkpoint is written; a run that died in it does it when it resumes."""
        with self._spent.on("checkpoint", step):
            self.checkpoints.wait()
        done = lambda: any((line["kind"], line["step"]) == ("validation", step) for line in self.reporter.lines())
        if self._evaluates and (step > self._spent.from_step or not from_first("evaluated", done)):
            with self._spent.on("evaluation", step):
                self.evaluate(step)

    def _stops_at(self, step: int) -> bool:
        """Whether to stop after this step; of several processes all say so at the same one."""
        if jax.process_count() == 1:
            return self._stopping
        return multihost_utils.reached_preemption_sync_point(step)

    def _stopped(self, step: int) -> int:
        self.reporter.say(f"stopped at step {step} of {self.total}: the same command goes on from here")
        return PREEMPTED

    def _saved(self, step: int) -> None:
        """Waits for the checkpoint, and writes down where this run's time went."""
        with self._spent.on("checkpoint", step):
            self.checkpoints.wait()
        if step > self._spent.from_step:
            self.reporter.metrics(step, "run", {}, self._spent.read())

    def _taking_part(
        self, step: int, before: tuple[ScalePrefix | None, Adversary | None]
    ) -> tuple[ScalePrefix | None, Adversary | None]:
        """The scales and the opponent of a step; where they differ from the step before, the log says so."""
        opponent = self.program.opponent and self.program.opponent.at(step)
        scales = self._scales_at(step)
        if opponent != before[1]:
            self.reporter.say(f"from step {step + 1} on: the discriminator takes part")
        if scales != before[0]:
            pyramid = self.task.config.pyramid if scales is None else scales.prefix
            self.reporter.say(f"from step {step + 1} on: {len(pyramid)} scale{'s'[: len(pyramid) > 1]} ({pyramid})")
        return scales, opponent

    def _batches(self, start: int) -> Iterator[dict[str, np.ndarray]]:
        data = self.config.data
        return pipeline.train_batches(
            self.sources[0],
            self.task.image_size,
            self.config.batch_size,
            self.config.seed,
            start_step=start,
            enlarge=data.enlarge,
            flip=data.flip,
            process_index=self._part[0],
            process_count=self._part[1],
            workers=data.workers,
        )

    def _checked(self, batch: dict[str, np.ndarray], split: str) -> dict[str, jax.Array]:
        """The batch on the devices; damaged pictures that it had to do without are noted."""
        for line in self._bad[split].add(batch["skipped"]):
            self.reporter.note(BAD_PICTURES_FILE, line)
        return self._put(batch)

    def _put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's rows as part of a global batch spread over the mesh."""
        sharding = batch_sharding(self.mesh)
        wanted = {name: value for name, value in batch.items() if name not in ("indices", "skipped")}
        return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in wanted.items()}

    def _report(self, step: int, metrics: dict[str, jax.Array], clock: Clock) -> None:
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not all(math.isfinite(values[name]) for name in ("loss", "gradient_norm")):
            self._check_finite()
        values |= clock.read(step, self.config.batch_size)
        self.reporter.metrics(step, "train", values, self._spent.read())
        self.reporter.progress(
            f"step {step}/{self.total}  loss {values['loss']:.4f}  {values['pictures_per_second']:.1f} pictures/s  "
            f"waiting for data {values['data_wait']:.0%}  {duration(values['seconds_left'])} left"
        )

    def _check_finite(self) -> None:
        bad = int(self.state.bad_step)
        if bad >= 0:
            rows = ", ".join(map(str, next(self._batches(bad))["indices"][:16]))
            raise InputError(
                f"loss or gradient was not finite at step {bad + 1}; nothing was learned from it or saved since. "
                f"Its batch holds the pictures {rows}...: look at them, lower the learning rate, and start again"
            )

    def evaluate(self, step: int) -> dict[str, Any]:
        """Figures over (a part of) the validation set, and pictures."""
        params, totals, first = self.state.inference_params, None, None
        config, source = self.config, self.sources[1]
        sizes = (self.task.image_size, config.evaluate_batch_size)
        evaluate = _evaluation(self.task, self.mesh)
        batches = functools.partial(pipeline.epoch_batches, source, *sizes, enlarge=config.data.enlarge)
        for batch in batches(process_index=self._part[0], process_count=self._part[1]):
            first = first or batch
            sums = jax.device_get(evaluate(params, self.fixed, self._checked(batch, "validation")))
            totals = self.task.add(totals, sums)
        figures = self.task.summarise(totals)
        self.reporter.metrics(step, "validation", figures)
        self.reporter.say(f"step {step}, validation: {self.task.headline(figures)}")
        if self._part[1] > 1:
            first = next(batches())  # the same pictures for everyone
        shown = self.task.pictures(params, self.fixed, first)
        for name, picture in shown.items():
            self.reporter.picture(step, name, picture)
        return figures


@functools.lru_cache(maxsize=4)
def _evaluation(task: Task, mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """The compiled sums over a validation batch, on every device."""
    return jax.jit(own_settings()(task.evaluate), out_shardings=replicated(mesh))
