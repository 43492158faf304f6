"""Reward functions beside the config that names them."""


def accuracy(completions, solution, **columns):
    return [float(s in c[0]["content"]) for c, s in zip(completions, solution, strict=True)]


def tag_count_reward(completions, **columns):
    return [c[0]["content"].count("<think>") / 2 for c in completions]
