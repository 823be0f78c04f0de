"""How large, and on how many tokens? The scaling law, and the sizes that it calls best.

A law predicts the loss of a model of N parameters after D tokens: E + A / N^alpha + B / D^beta.
It was fitted to dense transformers of a certain size, and its FLOPs are 6 N for a training token
and 2 N for one at inference. For hybrids and experts it is an assumption, with N the parameters
that a token uses, each stored one counted once (`Model.params_active`).
"""

from dataclasses import dataclass
from math import exp, inf, log

from cookbook_lib.calculators.chips import Chip

Number = int | float


@dataclass(frozen=True, kw_only=True)
class Law:
    """Constants of a fit, and the models and tokens that it was fitted to."""

    name: str
    E: float  # loss that no model goes below
    A: float
    B: float
    alpha: float
    beta: float
    source: str
    fitted_params: tuple[float, float] = (70e6, 16e9)  # arXiv:2203.15556, section 3
    fitted_tokens: tuple[float, float] = (5e9, 500e9)  # the same

    def loss(self, params: Number, tokens: Number) -> float:
        """Predicted loss in nats for each token of the text that the fit used."""
        return self.E + self.A / params**self.alpha + self.B / tokens**self.beta

    def tokens(self, params: Number, loss: Number) -> float:
        """Training tokens that bring a model of this size to a loss; infinite if none do."""
        rest = loss - self.E - self.A / params**self.alpha
        return (self.B / rest) ** (1 / self.beta) if rest > 0 else inf

    def fits(self, params: Number, tokens: Number) -> bool:
        """Whether the law was fitted to such models; outside, it extrapolates."""
        (n, most), (d, longest) = self.fitted_params, self.fitted_tokens
        return n <= params <= most and d <= tokens <= longest


LAWS = {
    "besiroglu": Law(
        name="besiroglu",
        E=1.8172,
        A=482.01,
        B=2085.43,
        alpha=0.3478,
        beta=0.3658,
        source="arXiv:2404.10102, the fit repeated on 240 of the published points",
    ),
    "hoffmann": Law(
        name="hoffmann",
        E=1.69,
        A=406.4,
        B=410.7,
        alpha=0.34,
        beta=0.28,
        source="arXiv:2203.15556, equation 10, as printed",
    ),
    "sardana": Law(
        name="sardana",
        E=1.69,
        A=406.4,
        B=410.7,
        alpha=0.336,
        beta=0.283,
        source="arXiv:2401.00448, section 2: Hoffmann's fit with a digit more",
    ),
}
TOKENS_PER_PARAM = 192  # MiniCPM, arXiv:2404.06395: another fit's answer, far above the 20 in use


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model's size and training tokens with the loss that a law predicts for them."""

    params: Number
    tokens: Number
    loss: Number

    @property
    def tokens_per_param(self) -> float:
        return self.tokens / self.params

    def flops(self, inference_tokens: Number = 0) -> float:
        """6 N for each training token, 2 N for each one at inference."""
        return self.params * (6 * self.tokens + 2 * inference_tokens)


def positive(**values: Number) -> None:
    """`ValueError` unless every value is a number above 0."""
    for name, value in values.items():
        if not 0 < value < inf:
            raise ValueError(f"{name} is {value:g}, expected a number above 0")


def share(mfu: Number) -> None:
    """`ValueError` unless it is a share of the peak."""
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu is {mfu:g}, expected a share of the peak, above 0 and at most 1")


def budget(chip: Chip, gpus: Number, days: Number, mfu: Number) -> float:
    """FLOPs that so many chips do in so many days at a share `mfu` of their bf16 peak."""
    positive(gpus=gpus, days=days)
    share(mfu)
    return gpus * chip.flops * mfu * days * 86400


def optimum(law: Law, flops: Number) -> Size:
    """The size of least loss whose training takes so many FLOPs: arXiv:2203.15556, equation 4."""
    positive(flops=flops)
    ratio = (law.alpha * law.A / (law.beta * law.B)) ** (1 / (law.alpha + law.beta))
    params = ratio * (flops / 6) ** (law.beta / (law.alpha + law.beta))
    return sized(law, params, flops / 6 / params)


def sized(law: Law, params: Number, tokens: Number) -> Size:
    return Size(params=params, tokens=tokens, loss=law.loss(params, tokens))


def reference(law: Law, params: Number) -> Size:
    """The size for which this number of parameters is the best use of its FLOPs."""
    if not 1 <= params < inf:
        raise ValueError(f"reference_params is {params:g}, expected a number of parameters")
    tokens = (law.beta * law.B / (law.alpha * law.A) * params**law.alpha) ** (1 / law.beta)
    return sized(law, params, tokens)


def with_inference(law: Law, loss: Number, inference_tokens: Number) -> Size:
    """The size that reaches a loss with the fewest FLOPs over its life: arXiv:2401.00448.

    A smaller model needs more tokens for the same loss and less for each token that it serves. At
    the best size the two changes cancel, and only there: what is saved falls as N grows.
    """
    if not loss > law.E:
        raise ValueError(f"loss is {loss:g}, expected more than {law.E:g}, which no model reaches")
    if not 0 <= inference_tokens < inf:
        raise ValueError(f"inference_tokens is {inference_tokens:g}, expected 0 or more")
    rest = loss - law.E
    low = log(law.A / rest) / law.alpha  # here all tokens would not be enough
    high = log(law.A * (1 + law.alpha / law.beta) / rest) / law.alpha  # best without inference

    def gain(log_params: Number) -> float:
        """What one per cent more parameters saves in training, less what it costs."""
        share = law.A / exp(log_params) ** law.alpha
        if share >= rest:
            return inf
        tokens = law.tokens(exp(log_params), loss)
        return 6 * tokens * (law.alpha / law.beta * share / (rest - share) - 1) - (
            2 * inference_tokens
        )

    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if gain(middle) > 0 else (low, middle)
    return sized(law, exp(high), law.tokens(exp(high), loss))
