"""Our side: `python -m benchmarks.ppo.ours TASK OUT SEED VALUE`, in this repository's environment.

TASK is a folder that `task.write` made. VALUE is `model` (a value model of its own, as the peer
has) or `head` (a head on the policy's trunk). OUT receives `policy/`, and `result.json` with the
seconds of training and the completions that were sampled.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from launcher.worker.ppo.config import PPOConfig
from launcher.worker.ppo.trainer import PPOTrainer


def main(task: Path, out: Path, seed: int, value: str) -> None:
    settings = json.loads((task / "settings.json").read_text())
    epochs, rollouts, batch = (settings[name] for name in ("ppo_epochs", "rollouts", "batch"))

    def classifier(name: str) -> Any:
        return AutoModelForSequenceClassification.from_pretrained(task / name, num_labels=1)

    trainer = PPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(task / "policy"),
        reward_model=classifier("reward"),
        value_model=classifier("value") if value == "model" else None,
        args=PPOConfig(
            output_dir=str(out / "checkpoints"),
            per_device_train_batch_size=batch,
            num_ppo_epochs=epochs,
            max_steps=rollouts * epochs,
            max_completion_length=settings["length"],
            learning_rate=settings["learning_rate"],
            value_learning_rate=settings["learning_rate"],
            kl_coef=settings["kl_coef"],
            seed=seed,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            logging_steps=epochs,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(json.loads((task / "prompts.json").read_text())),
        processing_class=AutoTokenizer.from_pretrained(task / "policy", padding_side="left"),
    )
    started = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    trainer.save_model(str(out / "policy"))
    samples = rollouts * batch
    result = {"samples": samples, "seconds": seconds, "processor_seconds": processor}
    (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
