"""The asynchronous pipeline on the smallest model there is, simulated message by message.

Every stage holds a few weights, one for each of its layers y = w * x. (Two layers, so that stashing
matters on a first stage too: what reaches its first weight passes its second.) The loss of a
sample is (y - t)^2; the gradient of a step is the mean over its samples. The optimizers are SGD with
momentum and weight decay,  v <- momentum v + (g + decay w);  w <- w - lr v,  its Nesterov form, Adam
and AdamW as their papers write them.

Nothing here computes a delay from a formula. Every stage has its own list of forwards and
backwards, messages wait in queues, and the number of updates between a forward and its backward is
counted in a first run over versions alone; the second run, over numbers, uses what was counted.
All arithmetic is in double precision, so that only the program under test rounds.

Run as a script it prints the weights after each step:  async_reference.py --stages 4 --steps 8
"""

import argparse
import collections
import copy
import dataclasses
import math


@dataclasses.dataclass
class Options:
    """What the simulation shares with the program's options of the same names."""

    batch: int = 4
    micro_batch: int = 4
    lr: float = 0.02
    momentum: float = 0.9
    decay: float = 0.0
    spare_first: bool = False  # no decay in the first layer of each stage
    optimizer: str = "sgd"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    predict: str = "none"
    nesterov_last: bool = False
    two_versions: bool = False
    pipemare_lr: float = 0.0  # epochs
    stash: bool = False
    gap_aware: bool = False
    pipemare_dc: float = 0.0
    in_flight: int = 0
    recompute: bool = False  # all layers
    sync_epochs: int = 0
    gap_every: int = 0  # micro-batches


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


def flushed_list(depth, steps):
    """1f1b: the list of a stage on its own for every step; nothing of the next begins before."""
    order, first = [], 0
    for step in steps:
        own = stage_list(depth, len(step), in_flight=0)
        order += [(kind, first + m) for kind, m in own]
        first += len(step)
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


class Sgd:
    """One weight's momentum."""

    def __init__(self, nesterov=False):
        self.nesterov = nesterov
        self.velocity = 0.0

    def step(self, weight, gradient, rate, options):
        total = gradient + options.decay * weight
        self.velocity = options.momentum * self.velocity + total
        move = total + options.momentum * self.velocity if self.nesterov else self.velocity
        return weight - rate * move

    def foresee(self, weight, rates, options, gathered=None):
        """The weight after as many more steps as there are rates, without new gradients (msnag) but
        what the first of them has gathered (aggmsnag), or after as many repetitions of the last move
        (spectrain)."""
        velocity = self.velocity
        for i, rate in enumerate(rates):
            if options.predict != "spectrain":
                velocity = options.momentum * velocity + options.decay * weight
            if gathered is not None and i == 0:
                velocity += gathered
            weight -= rate * velocity
        return weight


class Adam:
    """One weight's means of gradients and of their squares. NAdam keeps the product of its momenta
    beside them; its decay is AdamW's."""

    def __init__(self, name):
        self.decoupled = name != "adam"
        self.momenta = [] if name == "nadam-async" else None
        self.steps = 0
        self.mean = self.square = 0.0

    def step(self, weight, gradient, rate, options):
        self.steps += 1
        if self.decoupled:
            weight -= rate * options.decay * weight
        else:
            gradient += options.decay * weight
        self.mean = options.beta1 * self.mean + (1 - options.beta1) * gradient
        self.square = options.beta2 * self.square + (1 - options.beta2) * gradient**2
        mean = self.mean / (1 - options.beta1**self.steps)
        if self.momenta is not None:
            mean = self.look_ahead(gradient, options)
        return weight - rate * mean / self.below(options)

    def look_ahead(self, gradient, options):
        """What NAdam puts in the place of the mean: the momentum of the next step already."""
        if not self.momenta:
            self.momenta = [self.momentum(1, options)]
        self.momenta.append(self.momentum(self.steps + 1, options))
        *now, _ = self.momenta
        return self.momenta[-1] * self.mean / (1 - math.prod(self.momenta)) + (
            1 - now[-1]
        ) * gradient / (1 - math.prod(now))

    @staticmethod
    def momentum(step, options):
        return options.beta1 * (1 - 0.96 ** (0.004 * step) / 2)

    def below(self, options, more=0):
        return (self.square / (1 - options.beta2 ** (self.steps + more))) ** 0.5 + options.eps

    def foresee(self, weight, rates, options, gathered=None):
        """Multi-step NAG: the squares, and their correction, stay as they are. Before the first
        step there are none: only the decay that needs none moves the weight. With a gradient
        gathered, the first of the steps is a whole one, and the others begin there. FTPipe has the
        correction of the squares go on."""
        if gathered is not None and rates:
            there = copy.copy(self)
            weight = there.step(weight, gathered, rates[0], options)
            return there.foresee(weight, rates[1:], options)
        mean = self.mean
        for i, rate in enumerate(rates, self.steps + 1):
            if self.decoupled:
                weight -= rate * options.decay * weight
            if self.steps == 0:
                continue
            mean *= options.beta1
            if not self.decoupled:
                mean += (1 - options.beta1) * options.decay * weight
            more = i - self.steps if options.predict == "msnag-ftpipe" else 0
            weight -= rate * mean / (1 - options.beta1**i) / self.below(options, more)
        return weight


def new_optimizer(options, is_last):
    if "adam" in options.optimizer:
        return Adam(options.optimizer)
    return Sgd(options.optimizer == "nesterov" or (options.nesterov_last and is_last))


class Penalty:
    """One weight's measure of a step (gap-aware): a running mean of the squares of its velocities, and
    the highest learning rate."""

    KEPT = 0.999

    def __init__(self):
        self.steps = 0
        self.mean_square = self.top_rate = 0.0

    def moved(self, velocity, rate):
        self.steps += 1
        self.mean_square = self.KEPT * self.mean_square + (1 - self.KEPT) * velocity**2
        self.top_rate = max(self.top_rate, rate)

    def divisor(self, then, now, rate):
        if self.steps == 0:
            return 1.0
        typical = (self.mean_square / (1 - self.KEPT**self.steps)) ** 0.5 + 1e-8
        return 1 + abs(then - now) / (max(self.top_rate, rate) * typical)


@dataclasses.dataclass
class Stage:
    """One rank: its weights, one for each layer, and what waits for its backwards."""

    weights: list
    optimizers: list  # one for each weight
    rate: object = None  # step -> learning rate
    delay: float = 0.0  # updates by which its forwards are late on average
    first_late: int = 0  # the first step that may be late
    gradient: list = None
    gathered: int = 0  # micro-batches in it
    inputs: dict = dataclasses.field(default_factory=dict)  # micro-batch -> input of each layer
    used: dict = dataclasses.field(default_factory=dict)  # micro-batch -> weights of its forward
    history: list = dataclasses.field(default_factory=list)  # weights after each update
    events: list = dataclasses.field(default_factory=list)  # of this epoch, see measure_gaps
    gaps: list = dataclasses.field(default_factory=list)  # of each epoch

    def __post_init__(self):
        self.gradient = [0.0] * len(self.weights)
        self.penalties = [Penalty() for _ in self.weights]
        self.drift = [0.0] * len(self.weights)  # mean move of an update
        self.first = list(self.weights)

    @staticmethod
    def options_of(layer, options):
        spared = options.spare_first and layer == 0
        return dataclasses.replace(options, decay=0.0) if spared else options

    def forward(self, m, values, staleness, step, options):
        weights = list(self.weights)
        if options.two_versions:  # after step - 2, whatever this stage has by now
            oldest = min(step, self.first_late)  # but all of the steps where nothing is late
            weights = [self.first, *self.history][max(step - 1, oldest)]
        if options.predict != "none":
            done = len(self.history)
            rates = [self.rate(step) for step in range(done, done + staleness)]
            some = self.gathered and options.predict == "aggmsnag"
            weights = [
                optimizer.foresee(
                    weight, rates, self.options_of(layer, options), gradient if some else None
                )
                for layer, (weight, optimizer, gradient) in enumerate(
                    zip(weights, self.optimizers, self.gradient)
                )
            ]
        self.used[m] = weights
        self.events.append(("forward", m, weights))
        self.inputs[m] = []
        for weight in weights:
            self.inputs[m].append(values)
            values = [weight * value for value in values]
        return values

    def backward(self, m, gradients, options):
        used = self.used.pop(m)
        self.events.append(("backward", m, list(self.weights)))
        weights = used if options.stash or options.two_versions else self.weights
        if options.pipemare_dc and len(self.history) >= self.first_late:
            weights = [now - self.delay * move for now, move in zip(self.weights, self.drift)]
        inputs = self.inputs.pop(m)
        self.gathered += 1
        if options.recompute:  # from what came in, with the weights that this backward reads
            for layer in range(1, len(weights)):
                inputs[layer] = [weights[layer - 1] * value for value in inputs[layer - 1]]
        for layer in reversed(range(len(weights))):
            gradient = sum(g * value for g, value in zip(gradients, inputs[layer]))
            if options.gap_aware:
                rate = self.rate(len(self.history))
                gradient /= self.penalties[layer].divisor(used[layer], self.weights[layer], rate)
            self.gradient[layer] += gradient
            gradients = [weights[layer] * g for g in gradients]
        return gradients

    def update(self, options):
        self.gathered = 0
        for layer, optimizer in enumerate(self.optimizers):
            self.weights[layer] = optimizer.step(
                self.weights[layer],
                self.gradient[layer],
                self.rate(len(self.history)),
                self.options_of(layer, options),
            )
            self.gradient[layer] = 0.0
            if options.gap_aware:
                self.penalties[layer].moved(optimizer.velocity, self.rate(len(self.history)))
        before = self.history[-1] if self.history else self.first
        self.history.append(list(self.weights))
        if options.pipemare_dc and self.delay > 0:
            keeps = options.pipemare_dc ** (1 / self.delay)
            self.drift = [
                keeps * move + (1 - keeps) * (now - then)
                for move, now, then in zip(self.drift, self.weights, before)
            ]


def measure_gaps(events, every):
    """[(root mean square of what a forward's weights are off, the same relative to the weights)] of
    every so many-th forward, the weights being those at its backward. The next one begins no sooner
    than the last one is done."""
    found, since, under_way = [], 0, None
    for kind, m, weights in events:
        if kind == "forward":
            since += 1
            if since >= every and not under_way:
                since, under_way = 0, (m, weights)
        elif under_way and under_way[0] == m:
            off = math.fsum((a - b) ** 2 for a, b in zip(under_way[1], weights))
            size = math.fsum(w * w for w in weights)
            found.append(((off / len(weights)) ** 0.5, (off / size) ** 0.5))
            under_way = None
    return found


def simulate_span(x, t, stages, steps, options, synchronous):
    """Trains over the given steps with an empty pipeline before and after; returns the loss of
    every step."""
    items = [item for step in steps for item in step]
    count = len(stages)
    lists = [
        flushed_list(count - 1 - s, steps)
        if synchronous
        else stage_list(count - 1 - s, len(items), options.in_flight)
        for s in range(count)
    ]
    staleness = count_staleness(lists, items)
    losses = []
    loss_sum = 0.0
    done = len(stages[0].history)
    step_of = [done + i for i, step in enumerate(steps) for _ in step]

    def forward(s, m, message):
        nonlocal loss_sum
        item = items[m]
        values = x[item.first : item.end] if s == 0 else message
        outputs = stages[s].forward(m, values, staleness[s][m], step_of[m], options)
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
    if options.gap_every:
        for stage in stages:
            stage.gaps.append(measure_gaps(stage.events, options.gap_every))
            stage.events.clear()
    return losses


def rate_of(options, steps_per_epoch, delay):
    """The learning rate of a stage whose forwards are that late on average, as a function of the step: PipeMare
    divides it by the delay at first, and ever less (T1)."""
    delay = max(1.0, delay)
    fade = round(options.pipemare_lr * steps_per_epoch)
    first = options.sync_epochs * steps_per_epoch

    def rate(step):
        late = step - first
        slow = fade and late >= 0
        return options.lr / delay ** (1 - min(late / fade, 1)) if slow else options.lr

    return rate


def run(x, t, weights, steps, options):
    """Trains for `steps` optimizer steps, draining the pipeline at the end of every epoch.
    weights[stage][layer] are the first ones. Returns the loss of each step, and the stages."""
    stages = [
        Stage(list(own), [new_optimizer(options, s == len(weights) - 1) for _ in own])
        for s, own in enumerate(weights)
    ]
    losses = []
    epoch = cut_epoch(len(x), options)
    first_late = options.sync_epochs * len(epoch)
    longest = [item for step in epoch[: steps - first_late] for item in step]
    depths = range(len(stages) - 1, -1, -1)
    lists = [stage_list(depth, len(longest), options.in_flight) for depth in depths]
    for stage, staleness in zip(stages, count_staleness(lists, longest)):
        stage.delay = sum(staleness) / len(staleness)
        stage.rate = rate_of(options, len(epoch), stage.delay)
        stage.first_late = first_late
    while len(losses) < steps:
        synchronous = len(losses) < first_late
        now = epoch[: steps - len(losses)]
        losses += simulate_span(x, t, stages, now, options, synchronous)
    return losses, stages


def simulate(x, t, weights, steps, options):
    """The same; returns (losses, weights after each step), one entry a step."""
    losses, stages = run(x, t, weights, steps, options)
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
