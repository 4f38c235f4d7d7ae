"""Transform rules: a TOML file with [[transform]] tables, or a list of such tables. The first rule whose `match` is the whole
name of a module decides; names are Hugging Face Llama's for every family. See docs/transforms.md."""
import dataclasses
import difflib
import pathlib
import re

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


class RuleError(ValueError):
    """A rule that can't be applied: one line that says which, and what to do."""


@dataclasses.dataclass
class Optical:
    """The parameters of the kind "optical", as the program knows them (`refract kinds optical`)."""

    q_levels: int = 256
    q_lut_min: float = 0.020040
    q_quantiles: list = dataclasses.field(default_factory=list)
    q_smooth_factor: float = 0.9
    q_init_seed: int = 0
    q_bypass: bool = False
    q_x_per: str = "tensor"
    q_w_per: str = "tensor"
    q_out_per: str = "tensor"
    q_learn: bool = False
    gradient: str = "dense"
    noise: bool = True
    compat: str = "none"
    compat_shared_noise: bool = False
    compat_clipped_range: bool = False
    compat_scaled_qk_range: bool = False

    def __post_init__(self):
        if (self.q_x_per, self.q_w_per, self.q_out_per) != ("tensor",) * 3:
            raise ValueError("q_x_per, q_w_per and q_out_per are the program's alone; leave them at tensor here")
        if self.q_learn or self.gradient != "dense":
            raise ValueError("q_learn and gradient are the program's alone; leave them out here")
        if self.compat not in ("none", "mase-finetune", "mase-pretrain"):
            raise ValueError(f"compat = {self.compat!r} is not one of none, mase-finetune, mase-pretrain")

    @property
    def clips_ranges(self):
        return self.compat == "mase-pretrain" or self.compat_clipped_range

    @property
    def scales_qk_range(self):
        return self.compat != "none" or self.compat_scaled_qk_range

    @property
    def shared_noise(self):
        """The one number that stands for every element's noise; None: each element draws its own."""
        return mase_shared_noise(self.q_init_seed) if self.compat != "none" or self.compat_shared_noise else None


def mase_shared_noise(seed):
    """triton's rand(seed, 0) - 1/2: the first word of Philox 4x32 with 10 rounds."""
    counter, key = [0, 0, 0, 0], [seed % 2**32, seed // 2**32 % 2**32]
    for _ in range(10):
        first, second = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [second >> 32 ^ counter[1] ^ key[0], second % 2**32, first >> 32 ^ counter[3] ^ key[1], first % 2**32]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    word = counter[0]
    magnitude = 2**32 - word - 1 if word >= 2**31 else word
    return magnitude * 4.6566127342e-10 - 0.5


@dataclasses.dataclass
class Lora:
    """The parameters of the kind "lora"."""

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    adapter: str = "beside"  # or "merged": the layer multiplies by W + s B A
    over: object = None  # None: dense; else the kind of the frozen layer


@dataclasses.dataclass
class LowRank:
    """The parameters of the kind "low_rank"."""

    rank: int = 0
    init: str = "svd"
    joint: bool = False
    over: object = None  # the kind that multiplies by each factor


@dataclasses.dataclass
class BlockDense:
    """The parameters of the kind "block_dense"."""

    rank: int = 0
    blocks: int = 2
    init: str = "ortho"
    joint: bool = False
    over: object = None


@dataclasses.dataclass
class BlockShuffle:
    """The parameters of the kind "block_shuffle"."""

    blocks: int = 2
    init: str = "ortho"
    joint: bool = False
    over: object = None


STRUCTURED = (LowRank, BlockDense, BlockShuffle)
KINDS = {"optical": Optical, "lora": Lora, "low_rank": LowRank, "block_dense": BlockDense, "block_shuffle": BlockShuffle}


def _kind(table, where):
    """A kind's parameters from {"kind": name, ...} or a plain name; None: leave alone."""
    table = {"kind": table} if isinstance(table, str) else dict(table)
    name = table.pop("kind", None)
    if name == "none" and not table:
        return None
    if name not in KINDS:
        raise RuleError(f"{where}: Python has the kinds {', '.join(KINDS)} and none, not {name!r}; "
                        "run it with the refract program")
    known = [field.name for field in dataclasses.fields(KINDS[name])]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0)
            raise RuleError(f"{where}: unknown key {key!r} of the kind {name!r}; did you mean {near[0]!r}?")
    if table.get("over") is not None:
        table["over"] = _kind(table["over"], where + ", over")
    if table.get("init", "svd") not in ("svd", "ortho", "xavier", "normal"):
        raise RuleError(f"{where}: init = {table['init']!r} is not one of svd, ortho, xavier, normal")
    try:
        kind = KINDS[name](**table)
    except ValueError as error:
        raise RuleError(f"{where}: {error}") from error
    if isinstance(kind, Lora):
        _check_adapter(kind, where)
    if getattr(kind, "joint", False):
        raise RuleError(f"{where}: joint = true joins gate and up in the program only; leave it out here")
    return kind


def _check_adapter(kind, where):
    if kind.adapter not in ("beside", "merged"):
        raise RuleError(f'{where}: adapter is "beside" or "merged", not {kind.adapter!r}')
    if kind.adapter == "merged" and kind.dropout > 0:
        raise RuleError(f"{where}: dropout has no place in a merged adapter, which has no input of its own; set it to 0")
    if kind.adapter == "merged" and not isinstance(kind.over, (Optical, type(None))):
        raise RuleError(f"{where}: a merged adapter goes into dense and optical layers")


def _tables(recipe):
    """The [[transform]] of a TOML file, or else that of the recipe it derives from: its `base`, in its folder or below."""
    file, known = pathlib.Path(recipe), []
    top = file.resolve().parent
    while True:
        known.append(file.resolve())
        with open(file, "rb") as stream:
            tree = tomllib.load(stream)
        if "transform" in tree or "base" not in tree:
            return tree.get("transform", [])
        base = file.parent / str(tree["base"])
        if not base.resolve().is_relative_to(top) or base.resolve() in known:
            raise RuleError(f"{file}: its base '{base}' lies outside of '{top}', or derives from it")
        file = base


class Rules:
    def __init__(self, source):
        if not isinstance(source, (list, tuple)):
            source = _tables(source)
        if not isinstance(source, (list, tuple)):
            raise RuleError("'transform' is an array of tables: write [[transform]] with match and kind")
        self.rules = []
        for number, table in enumerate(source, 1):
            table = dict(table)
            if "match" not in table or "kind" not in table:
                raise RuleError(f"transform rule {number} lacks 'match' or 'kind'")
            match = table.pop("match")
            where = f"transform rule {number} ({match!r})"
            self.rules.append((re.compile(match), _kind(table, where), where))
        self.used = set()

    def find(self, module):
        """The kind for a module, and where its rule stands; (None, None) where no rule matches."""
        for number, (expression, kind, where) in enumerate(self.rules):
            if expression.fullmatch(module):
                self.used.add(number)
                return kind, where
        return None, None

    def check_all_used(self, example):
        for number, (_, _, where) in enumerate(self.rules):
            if number not in self.used:
                raise RuleError(f"{where} matches no module, or rules before it matched them all; a name is for "
                                f"example {example!r}")
