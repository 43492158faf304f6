"""One training step of a stage without GPU or weights: its allocated peaks, phase by phase.

`python -m launcher.worker.trace` reads one JSON document from stdin and writes one to stdout.

Request:

    {"stages": [{
        "stage":    a stage as it stands in plan.json (launcher.recipe.types.Stage),
        "configs":  {role: config.json of the model, with `model_type`},
        "settings": launcher.memory.types.Settings, any subset of its fields,
        "stack":    optional, launcher.memory.stack.Stack, any subset of its fields: what is built
                    otherwise than the worker would
    }]}

Roles are the stage's own; a reference that is left out is as large as the policy.

Answer (bytes throughout):

    {"versions": {package: version},
     "stages": [{
        "name": of the stage,
        "phases":   {phase: peak of allocated bytes} in the order they run: `load`, `rollout` and
                    `score` of methods that generate, `loss` (to the end of the forward pass),
                    `backward`, `step`,
        "peak":     the largest of them,
        "resident": what stays between two optimizer steps,
        "live":     [[operator, bytes]] at the peak, the ten largest; `weights` and `batch` are the
                    models and the batch,
        "modelled": what was not executed but modelled, in words,
        "seconds":  the time it took
     } or {"name": …, "refused": why it cannot be traced, in a sentence}]}

The trainer is the method's own, its `training_step`, `compute_loss` and optimizer run as they are,
under fake tensors. One process is traced: ZeRO and several GPUs are not.
"""
