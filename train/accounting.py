"""What a step takes of arithmetic, counted from the loss as it is written, and MFU.

The counting rule, that of PaLM (Chowdhery et al. 2022, appendix B), for any task:

- Products (`dot_general`) and convolutions count, 2 FLOPs a multiply-add; nothing else does.
- Of the loss and its gradient by the parameters that are trained: forward once, and backward once
  for each operand that a gradient goes through. A layer inside so counts 3 times its forward, 6 N a
  token; one that reads data alone 2 times, a frozen network behind the model 2, a target's path 1.
- What `jax.checkpoint` makes again does not count, nor what only a logged scalar needs.
- Lookups do not count, whether a gather or a product with a one-hot (with truth values).
- Of an attention's two products counts the share that its mask lets through, a half where it is
  causal, as far as the attention says so (`layers.visible`). One that does not counts whole: a
  table of pairs such as the masked decoder's, locked regions, an order drawn anew.
- A loop counts as often as it turns, of branches the largest.

The count is that of the global batch, padding included, whatever the mesh is. It is made with the
plain attention, since the inside of a kernel cannot be counted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax.extend.core import jaxpr_as_fun
from jax.interpreters import partial_eval

from layers.kernels import use_kernel
from layers.visible import share_of
from train.state import names
from train.task import Task

_SAME = (  # a one-hot stays one through these
    "reshape", "transpose", "broadcast_in_dim", "squeeze", "slice", "dynamic_slice", "rev", "copy",
    "concatenate", "convert_element_type", "reduce_precision", "sharding_constraint",
    "optimization_barrier",
)  # fmt: skip
_OPAQUE = ("pallas_call", "dot_product_attention")


def model_flops(task: Task, batch: Mapping[str, Any]) -> float:
    """FLOPs of one step over this batch (arrays or shapes, all rows of all processes), by the rule
    above; nothing runs.

    Raises `ValueError` for products that cannot be counted: in a `while` loop, or in a kernel that
    a task calls by itself.
    """
    module = nnx.eval_shape(lambda: task.init(nnx.Rngs(0)))
    graphdef, params, extra = nnx.split(module, nnx.Param, ...)
    leaves, tree = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(params))
    moving = [task.group(names(path)) != "frozen" for path, _ in leaves]
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}

    def loss(params: list[Any], extra: Any, batch: Any, key: Any) -> Any:
        model = nnx.merge(graphdef, jax.tree.unflatten(tree, params), extra)
        return task.loss(model, batch, key)[0]

    arrays = [leaf for _, leaf in leaves]
    key = jax.eval_shape(lambda: jax.random.key(0))
    with use_kernel("xla"):
        return flops_of_gradient(loss, arrays, nnx.to_pure_dict(extra), shapes, key, trained=moving)


@dataclasses.dataclass(frozen=True)
class Load:
    """What a global batch of some shapes has, for rates, and what a step over it takes of model
    FLOPs."""

    amounts: Mapping[str, float]
    flops: float


class Loads:
    """`Load` of batches, found once for each of their shapes (buckets have several)."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._known: dict[tuple[Any, ...], Load] = {}

    def known(self, batch: Mapping[str, Any]) -> Load | None:
        """That of a batch whose shapes were there before."""
        return self._known.get(_shapes(batch))

    def __call__(self, batch: Mapping[str, Any]) -> Load:
        """That of any batch."""
        key = _shapes(batch)
        if key not in self._known:
            self._known[key] = Load(amounts(batch), model_flops(self._task, batch))
        return self._known[key]


def _shapes(batch: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple([(name, x.shape, x.dtype) for name, x in batch.items()])


def flops_of_gradient(
    loss: Callable[..., Any], params: list[Any], *others: Any, trained: Sequence[bool] = ()
) -> float:
    """FLOPs of `loss(params, *others)` and its gradient by those of the list that are `trained` (by
    all, if nothing is said)."""
    closed = jax.make_jaxpr(loss)(params, *others)
    flat = jax.tree.leaves((params, others))
    plain = jaxpr_as_fun(closed.replace(jaxpr=_keep_all(closed.jaxpr)))
    moving = [i for i, yes in enumerate(trained or [True] * len(params)) if yes]

    def value(given: list[Any], flat: list[Any]) -> Any:
        whole = list(flat)
        for i, x in zip(moving, given, strict=True):
            whole[i] = x
        return plain(*whole)[0]

    gradient = jax.make_jaxpr(jax.value_and_grad(value))([flat[i] for i in moving], flat)
    needed, _ = partial_eval.dce_jaxpr(gradient.jaxpr, [True] * len(gradient.out_avals))
    return _count(needed, [False] * len(needed.invars), 1.0)[0]


def amounts(batch: Mapping[str, Any]) -> dict[str, float]:
    """What a global batch has, for rates: `rows`, and `tokens` where there are `ids` or `codes`
    (prompt and padding too; letters of the conditioning do not count)."""
    found = {"rows": float(next(iter(batch.values())).shape[0])}
    for name in ("ids", "codes"):
        if name in batch:
            found["tokens"] = float(math.prod(batch[name].shape))
    return found


def mfu(
    flops_per_step: float, seconds: float, *, num_devices: int, peak_flops_per_s: float | None
) -> float | None:
    """Share of the devices' peak that the model's arithmetic took, 0 to 1; None without a peak."""
    if peak_flops_per_s is None or seconds <= 0:
        return None
    return flops_per_step / seconds / (num_devices * peak_flops_per_s)


def _inner(value: Any) -> Any:
    """The jaxpr in an equation's parameter, or None."""
    jaxpr = getattr(value, "jaxpr", value)
    return jaxpr if hasattr(jaxpr, "eqns") else None


def _keep_all(jaxpr: Any) -> Any:
    """The same program, in which no checkpoint makes anything again."""

    def changed(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(map(changed, value)) if any(map(_inner, value)) else value
        jaxpr = _inner(value)
        if jaxpr is None:
            return value
        new = _keep_all(jaxpr)
        return new if jaxpr is value else value.replace(jaxpr=new)

    equations = []
    for equation in jaxpr.eqns:
        params = {name: changed(value) for name, value in equation.params.items()}
        if "policy" in params and "prevent_cse" in params:
            params["policy"] = jax.checkpoint_policies.everything_saveable
        equations.append(equation.replace(params=params))
    return jaxpr.replace(eqns=equations)


def _count(jaxpr: Any, given: Sequence[bool], share: float) -> tuple[float, list[bool]]:
    """FLOPs, and which results are truth values as numbers, given which arguments are; `share` is
    what an attention around this jaxpr says is visible."""
    truths = {var: yes for var, yes in zip(jaxpr.invars, given, strict=True) if yes}

    def is_truth(atom: Any) -> bool:
        literal = hasattr(atom, "val")
        return atom.aval.dtype == bool or (not literal and truths.get(atom, False))

    total = 0.0
    for equation in jaxpr.eqns:
        told = share_of(str(equation.source_info.name_stack))
        flags = [hasattr(x.aval, "dtype") and is_truth(x) for x in equation.invars]
        flops, results = _of(equation, flags, share if told is None else told)
        total += flops
        truths.update({v: True for v, yes in zip(equation.outvars, results, strict=True) if yes})
    return total, [hasattr(x.aval, "dtype") and is_truth(x) for x in jaxpr.outvars]


def _of(equation: Any, flags: list[bool], share: float) -> tuple[float, list[bool]]:
    """One equation's FLOPs and which of its results are truth values as numbers."""
    name, params = equation.primitive.name, equation.params
    nothing = [False] * len(equation.outvars)
    if name == "dot_general":
        (summed, _), (together, _) = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        flops = 2.0 * equation.outvars[0].aval.size * math.prod(left[i] for i in summed)
        # products of weights have no batch dimensions, those of an attention do
        return (0.0 if any(flags) else flops * (share if together else 1.0)), nothing
    if name == "conv_general_dilated":
        return _of_convolution(equation), nothing
    if name.startswith(_OPAQUE):
        raise ValueError(f"the products inside {name} cannot be counted: trace the plain attention")
    inner = [
        jaxpr
        for entry in params.values()
        for value in (entry if isinstance(entry, (tuple, list)) else (entry,))
        if (jaxpr := _inner(value)) is not None
    ]
    if not inner:
        return 0.0, [all(flags)] * len(nothing) if flags and name in _SAME else nothing
    return _of_program(equation, inner, flags, share)


def _of_program(
    equation: Any, inner: list[Any], flags: list[bool], share: float
) -> tuple[float, list[bool]]:
    """An equation that runs other jaxprs: a call, a loop, a choice."""
    name, params = equation.primitive.name, equation.params
    nothing = [False] * len(equation.outvars)
    if name == "cond":
        counted = [_count(jaxpr, flags[1:], share) for jaxpr in inner]
        return max(flops for flops, _ in counted), [
            all(each) for each in zip(*(results for _, results in counted), strict=True)
        ]
    if name == "while":
        if any(_count(jaxpr, [False] * len(jaxpr.invars), share)[0] for jaxpr in inner):
            raise ValueError(
                "a while loop with products turns an unknown number of times and cannot be "
                "counted: use jax.lax.scan"
            )
        return 0.0, nothing
    times = params["length"] if name == "scan" else 1
    if name == "scan":  # what is carried may be something else in the next turn
        carried = _carried(equation, inner[0])
        flags = [yes and i not in carried for i, yes in enumerate(flags)]
    if name == "shard_map":
        times = math.prod(params["mesh"].shape[axis] for axis in _cut_along(params))
    total, results = 0.0, nothing
    for jaxpr in inner:
        fits = len(jaxpr.invars) == len(flags)
        flops, found = _count(jaxpr, flags if fits else [False] * len(jaxpr.invars), share)
        total += times * flops
        results = found if len(found) == len(nothing) else nothing
    return total, results


def _carried(scan: Any, body: Any) -> range:
    """Which operands pass from turn to turn, by shapes: what a scan goes through, and what it piles
    up, has an axis more outside than inside. (Its parameters say so too, each version's its own.)
    """

    def alike(outside: list[Any], inside: list[Any]) -> int:
        return sum(x.aval.ndim == y.aval.ndim for x, y in zip(outside, inside, strict=True))

    num_carry = alike(scan.outvars, body.outvars)
    same = alike(scan.invars, body.invars)  # constants, then what is carried
    return range(same - num_carry, same)


def _cut_along(params: Mapping[str, Any]) -> set[str]:
    """The mesh axes that share the work of a `shard_map`; along the others it is only repeated."""
    parts = [part for spec in (*params["in_specs"], *params["out_specs"]) for part in spec]
    named = {axis for part in parts for axis in (part if isinstance(part, tuple) else (part,))}
    return named & set(params["newly_manual_axes"])


def _of_convolution(equation: Any) -> float:
    """Multiply-adds of every output with its window; holes that a stride's gradient puts into the
    input are no work, nor are the rows of other groups."""
    kernel, params = equation.invars[1].aval, equation.params
    numbers = params["dimension_numbers"]
    outputs = kernel.shape[numbers.rhs_spec[0]]
    holes = math.prod(params["lhs_dilation"]) * params["batch_group_count"]
    return 2.0 * equation.outvars[0].aval.size * kernel.size / outputs / holes
