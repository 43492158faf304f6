"""Candidates side by side on held-out prompts: `evaluation.json`, `evaluation.md` for people."""

from __future__ import annotations

import time

from launcher.records import evaluation, files
from launcher.report.evaluation import render_markdown
from launcher.worker import data, models
from launcher.worker.context import Context
from launcher.worker.evaluate.config import EvaluateConfig
from launcher.worker.finish import Finished
from launcher.worker.stop import Stop


def run(context: Context, stop: Stop) -> Finished:
    import torch

    from launcher.worker.evaluate.evaluate import evaluate

    stage = context.stage
    config = EvaluateConfig(**stage.train)
    tokenizer = models.tokenizer(context)
    # What a recipe names as the stage's data is held out here: nothing trains on it.
    rows = data.evaluation_set(context, tokenizer) or data.training_set(context, tokenizer)
    device = "cpu" if context.on_cpu else f"cuda:{context.local_rank}"
    if not context.on_cpu:
        # NCCL gathers on the current device, and every rank sees all GPUs of its node.
        torch.cuda.set_device(device)
    if context.world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo" if context.on_cpu else "nccl")
    context.enter("evaluate")
    began = time.time()
    result = evaluate(
        {label: context.folder_of(model) for label, model in stage.candidates.items()},
        baseline=stage.baseline,
        reward_model=context.model("reward_model"),
        reference=context.model("reference"),
        rows=rows.to_list(),
        scores=stage.scores,
        copy_of=context.run.user_file,
        config=config,
        tokenizer=tokenizer,
        dtype=getattr(torch, stage.dtype),
        device=device,
        batch_size=context.stage_plan.micro_batch,
        seed=stage.seed,
        on_progress=lambda done, total: context.report("evaluate", done, total),
        deepspeed=context.stage_plan.deepspeed,
        on_phase=context.measure,
        **context.loads,
    )
    # What was written is finished, what was not is done again.
    stop.hold()
    if context.is_main:
        evaluation.write(context.paths, result)
        text = render_markdown(evaluation.document(result))
        files.replace(context.paths.evaluation_text, text.encode())
    return Finished(
        metrics=evaluation.figures(result),
        roots=[context.paths.evaluation, context.paths.evaluation_text],
        seconds={"evaluate": time.time() - began},
    )
