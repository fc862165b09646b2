"""What trains a model: its LightningModule, rates and optimizer, from the file's words.

Lightning is imported when there is something to train: an exported model does without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_eve.assemble.vision_language import teacher
from lit_eve.models.encoder_free import EncoderFreeVLM
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.schema import VisionLanguageExperiment
from lit_eve.schema.alignments import PretrainedTeacher
from lit_eve.schema.models import EncoderFree, VisionLanguage
from lit_eve.schema.schedules import Schedule, TrainPart
from lit_eve.schema.training import AdamW, LanguageStage, Stage
from lit_eve.tasks.optimizers import AdamWOptions, Rate
from lit_eve_callbacks.schedules import schedule as make_schedule
from lit_eve_callbacks.schedules import warmup
from lit_eve_data.disk.features import StoredTeacher
from lit_eve_data.disk.reading import RecordView

if TYPE_CHECKING:
    from lit_eve.tasks.language import LanguageTask


def rates(stage: Stage, steps: int) -> dict[str, Rate]:
    """Learning rate of every trained part as a function of the stage's step."""
    return {part: _rate(options, stage.optimizer, steps) for part, options in stage.train.items()}


def _rate(part: TrainPart, optimizer: AdamW, steps: int) -> Rate:
    if isinstance(part.lr, Schedule) or optimizer.schedule == "constant":
        shape = number(part.lr, steps)
    else:
        end = part.lr * optimizer.final
        shape = make_schedule(optimizer.schedule, start=part.lr, end=end, steps=steps)
    rising = (part.warmup or optimizer.warmup).steps(steps)
    return lambda step: shape(step) * warmup(max(0, step - part.thaw), steps=rising)


def number(value: float | Schedule, steps: int) -> Rate:
    """A number of the file as a function of the step of a stage of `steps` steps."""
    if not isinstance(value, Schedule):
        return lambda step: value
    return make_schedule(
        value.schedule, start=value.start, end=value.end, steps=max(1, value.over.steps(steps))
    )


def task(
    experiment: VisionLanguageExperiment,
    stage: LanguageStage,
    model: VisionLanguageModel,
    steps: int,
) -> LanguageTask:
    """The LightningModule of a stage of `steps` steps."""
    from lit_eve.tasks.alignment import Aligning, AlignmentTask
    from lit_eve.tasks.language import LanguageTask

    loss = experiment.loss
    options = adamw(stage.optimizer)
    language = number(loss.language, steps)
    if stage.task == "language":
        return LanguageTask(model, rates(stage, steps), options, language)
    assert loss.alignment is not None  # the experiment file was checked
    assert isinstance(model, EncoderFreeVLM)
    assert isinstance(experiment.model, EncoderFree)
    streamed = streams_features(experiment, stage)
    aligning = Aligning(
        None if streamed else teacher(experiment.model, model.patch_embedding),
        number(loss.alignment.weight, steps),
        loss.alignment.distance,
    )
    return AlignmentTask(model, rates(stage, steps), options, aligning, language)


def streams_features(experiment: VisionLanguageExperiment, stage: LanguageStage) -> bool:
    """Whether a stage reads its teacher's features instead of computing them."""
    seen = getattr(experiment.model, "teacher", None)
    return stage.task == "alignment" and bool(getattr(seen, "stored", False))


def stored_teacher(options: VisionLanguage, view: RecordView) -> StoredTeacher:
    """Features of a view's pictures that `prepare --teacher` left."""
    seen = getattr(options, "teacher", None)
    assert isinstance(seen, PretrainedTeacher)  # `streams_features` said so
    return StoredTeacher(view, seen.source.resolved(), seen.layer)


def adamw(options: AdamW) -> AdamWOptions:
    """The optimizer's options besides the learning rate."""
    return AdamWOptions(options.betas, options.eps, options.weight_decay)
