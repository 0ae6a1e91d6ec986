"""The asynchronous pipeline on the smallest model there is, simulated message by message.

Every stage holds a few weights, one for each of its layers y = w * x. (Two layers, so that stashing
matters on a first stage too: what reaches its first weight passes its second.) The loss of a
sample is (y - t)^2; the gradient of a step is the mean over its samples; the optimizer is SGD with
momentum and weight decay:  v <- momentum v + (g + decay w);  w <- w - lr v.

Nothing here computes a delay from a formula. Every stage has its own list of forwards and
backwards, messages wait in queues, and the number of updates between a forward and its backward is
counted in a first run over versions alone; the second run, over numbers, uses what was counted.
All arithmetic is in double precision, so that only the program under test rounds.

Run as a script it prints the weights after each step:  async_reference.py --stages 4 --steps 8
"""

import argparse
import collections
import dataclasses


@dataclasses.dataclass
class Options:
    """What the simulation shares with the program's options of the same names."""

    batch: int = 4
    micro_batch: int = 4
    lr: float = 0.02
    momentum: float = 0.9
    decay: float = 0.0
    msnag: bool = False
    stash: bool = False
    in_flight: int = 0


@dataclasses.dataclass
class MicroBatch:
    """Samples [first, end) of the epoch; `samples` counts those of the whole optimizer step."""

    first: int
    end: int
    samples: int
    ends_step: bool


def cut_epoch(count, options):
    """The steps of one epoch, each a list of micro-batches; no sample is dropped."""
    steps = []
    for begin in range(0, count, options.batch):
        end = min(begin + options.batch, count)
        step = []
        for first in range(begin, end, options.micro_batch):
            last = min(first + options.micro_batch, end)
            step.append(MicroBatch(first, last, end - begin, ends_step=last == end))
        steps.append(step)
    return steps


def stage_list(depth, count, in_flight):
    """The fixed order of one stage: warm-up forwards, then one forward, one backward in turn, then
    the backwards that are left. Entries are ("forward" | "backward", micro-batch)."""
    warm_up = min(depth * (1 + in_flight), count)
    order = [("forward", m) for m in range(warm_up)]
    for m in range(warm_up, count):
        order += [("forward", m), ("backward", m - warm_up)]
    order += [("backward", m) for m in range(count - warm_up, count)]
    return order


def play(lists, forward, backward):
    """Runs all lists until they end. A stage takes its next action when the message that it needs
    has arrived. forward(stage, m, message) and backward(stage, m, message) return what is sent on;
    the last stage's forward returns what its own backward will be given."""
    stages = len(lists)
    activations = [collections.deque() for _ in range(stages)]  # to this stage, from the one before
    gradients = [collections.deque() for _ in range(stages)]  # to this stage, from the one behind
    todo = [collections.deque(actions) for actions in lists]
    while any(todo):
        moved = False
        for stage in range(stages):
            if not todo[stage]:
                continue
            kind, m = todo[stage][0]
            inbox = activations[stage] if kind == "forward" else gradients[stage]
            if not inbox and not (kind == "forward" and stage == 0):
                continue
            message = inbox.popleft() if inbox else None
            todo[stage].popleft()
            moved = True
            if kind == "forward":
                sent = forward(stage, m, message)
                (activations[stage + 1] if stage + 1 < stages else gradients[stage]).append(sent)
            else:
                sent = backward(stage, m, message)
                if stage > 0:
                    gradients[stage - 1].append(sent)
        if not moved:
            raise RuntimeError("the lists wait for each other")


def count_staleness(lists, items):
    """staleness[stage][m]: updates that the stage makes between forward and backward of m."""
    version = [0] * len(lists)
    seen = [{} for _ in lists]
    staleness = [[0] * len(items) for _ in lists]

    def forward(stage, m, _):
        seen[stage][m] = version[stage]
        return m

    def backward(stage, m, _):
        staleness[stage][m] = version[stage] - seen[stage][m]
        version[stage] += items[m].ends_step
        return m

    play(lists, forward, backward)
    return staleness


def foresee(weight, velocity, staleness, options):
    """The weight that multi-step NAG expects after `staleness` more updates without new
    gradients."""
    for _ in range(staleness):
        velocity = options.momentum * velocity + options.decay * weight
        weight -= options.lr * velocity
    return weight


@dataclasses.dataclass
class Stage:
    """One rank: its weights, one for each layer, and what waits for its backwards."""

    weights: list
    velocity: list = None
    gradient: list = None
    inputs: dict = dataclasses.field(default_factory=dict)  # micro-batch -> input of each layer
    used: dict = dataclasses.field(default_factory=dict)  # micro-batch -> weights of its forward
    history: list = dataclasses.field(default_factory=list)  # weights after each update

    def __post_init__(self):
        self.velocity = [0.0] * len(self.weights)
        self.gradient = [0.0] * len(self.weights)

    def forward(self, m, values, staleness, options):
        weights = list(self.weights)
        if options.msnag:
            weights = [foresee(w, v, staleness, options) for w, v in zip(weights, self.velocity)]
        self.used[m] = weights
        self.inputs[m] = []
        for weight in weights:
            self.inputs[m].append(values)
            values = [weight * value for value in values]
        return values

    def backward(self, m, gradients, options):
        used = self.used.pop(m)
        weights = used if options.stash else self.weights
        inputs = self.inputs.pop(m)
        for layer in reversed(range(len(weights))):
            self.gradient[layer] += sum(g * value for g, value in zip(gradients, inputs[layer]))
            gradients = [weights[layer] * g for g in gradients]
        return gradients

    def update(self, options):
        for layer, weight in enumerate(self.weights):
            total = self.gradient[layer] + options.decay * weight
            self.velocity[layer] = options.momentum * self.velocity[layer] + total
            self.weights[layer] -= options.lr * self.velocity[layer]
            self.gradient[layer] = 0.0
        self.history.append(list(self.weights))


def simulate_span(x, t, stages, steps, options):
    """Trains over the given steps with an empty pipeline before and after; returns the loss of
    every step."""
    items = [item for step in steps for item in step]
    count = len(stages)
    lists = [stage_list(count - 1 - s, len(items), options.in_flight) for s in range(count)]
    staleness = count_staleness(lists, items)
    losses = []
    loss_sum = 0.0

    def forward(s, m, message):
        nonlocal loss_sum
        item = items[m]
        values = x[item.first : item.end] if s == 0 else message
        outputs = stages[s].forward(m, values, staleness[s][m], options)
        if s + 1 < count:
            return outputs
        errors = [y - target for y, target in zip(outputs, t[item.first : item.end])]
        loss_sum += sum(e * e for e in errors)
        if item.ends_step:
            losses.append(loss_sum / item.samples)
            loss_sum = 0.0
        return [2 * e / item.samples for e in errors]

    def backward(s, m, message):
        sent = stages[s].backward(m, message, options)
        if items[m].ends_step:
            stages[s].update(options)
        return sent

    play(lists, forward, backward)
    return losses


def simulate(x, t, weights, steps, options):
    """Trains for `steps` optimizer steps, draining the pipeline at the end of every epoch.
    weights[stage][layer] are the first ones. Returns (losses, weights after each step), one entry a
    step."""
    stages = [Stage(list(own)) for own in weights]
    losses = []
    epoch = cut_epoch(len(x), options)
    while len(losses) < steps:
        losses += simulate_span(x, t, stages, epoch[: steps - len(losses)], options)
    return losses, [list(step) for step in zip(*(stage.history for stage in stages))]


def example(stages, layers=2, count=37):
    """A small regression problem: inputs, targets, and weights that are far from the answer."""
    x = [((7 * i) % 11 - 5) / 5 + 0.05 for i in range(count)]
    t = [1.5 * value + 0.1 * ((3 * i) % 5 - 2) for i, value in enumerate(x)]
    total = stages * layers
    flat = [1.1 - 0.4 * i / total for i in range(total)]
    return x, t, [flat[s * layers : (s + 1) * layers] for s in range(stages)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    for field in dataclasses.fields(Options):
        name = "--" + field.name.replace("_", "-")
        if field.type is bool:
            parser.add_argument(name, action="store_true")
        else:
            parser.add_argument(name, type=field.type, default=field.default)
    chosen = vars(parser.parse_args())
    stages, steps = chosen.pop("stages"), chosen.pop("steps")
    x, t, weights = example(stages)
    losses, history = simulate(x, t, weights, steps, Options(**chosen))
    for step, (loss, after) in enumerate(zip(losses, history)):
        shown = " | ".join(" ".join(f"{w:.9f}" for w in stage) for stage in after)
        print(f"step {step}: loss {loss:.9f}, weights", shown)


if __name__ == "__main__":
    main()
