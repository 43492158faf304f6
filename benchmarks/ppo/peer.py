"""TRL's side: `python peer.py TASK OUT SEED`, where TRL is 1.12.0 and nothing is of ours.

Reads and writes what `ours.py` does. The settings are the same; what TRL's loop has no setting for
(clipping of gradients) stays as each side has it, and its samples for the log are switched off.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"


def main(task: Path, out: Path, seed: int) -> None:
    # By name, since the TRL beside the launcher has it no more.
    ppo = importlib.import_module("trl.experimental.ppo")
    settings = json.loads((task / "settings.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(task / "policy", padding_side="left")
    prompts = json.loads((task / "prompts.json").read_text())["prompt"]

    def classifier(name: str) -> Any:
        return AutoModelForSequenceClassification.from_pretrained(task / name, num_labels=1)

    trainer = ppo.PPOTrainer(
        args=ppo.PPOConfig(
            output_dir=str(out / "checkpoints"),
            per_device_train_batch_size=settings["batch"],
            gradient_accumulation_steps=1,
            local_rollout_forward_batch_size=settings["batch"],
            num_mini_batches=1,
            num_ppo_epochs=settings["ppo_epochs"],
            total_episodes=settings["rollouts"] * settings["batch"],
            response_length=settings["length"],
            stop_token="eos",
            learning_rate=settings["learning_rate"],
            kl_coef=settings["kl_coef"],
            temperature=1.0,
            num_sample_generations=0,
            seed=seed,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(task / "policy"),
        ref_model=AutoModelForCausalLM.from_pretrained(task / "policy"),
        reward_model=classifier("reward"),
        value_model=classifier("value"),
        train_dataset=Dataset.from_dict({"input_ids": tokenizer(prompts)["input_ids"]}),
        eval_dataset=Dataset.from_dict({"input_ids": tokenizer(prompts)["input_ids"]}),
    )
    started = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    trainer.model.policy.save_pretrained(out / "policy")
    samples = trainer.state.episode
    result = {"samples": samples, "seconds": seconds, "processor_seconds": processor}
    (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
