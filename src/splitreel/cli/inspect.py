"""inspect holds the verbs map, cat."""

import argparse


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's verbs."""
