"""Rules applied to models of Hugging Face `transformers`."""
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, TrainerCallback
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.pytorch_utils import Conv1D

from refract import modules
from refract.rules import STRUCTURED, Lora, Optical, RuleError, Rules
from refract.structured import StructuredLinear, factor_shapes

ATTENTION = "refract"  # the name of our attention among transformers' implementations


def _attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **options):
    optical = getattr(module, "refract_attention", None)
    if optical is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options)
    if dropout:
        raise RuleError("optical attention has no dropout; set the model's attention dropout to 0")
    return optical(query, key, value, scaling if scaling is not None else query.shape[-1] ** -0.5, attention_mask), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class Place:
    """A linear module of a model, the names that rules know its layers by, and how it stores its weight."""

    def __init__(self, parent, attribute, names):
        self.parent, self.attribute, self.names = parent, attribute, names
        self.now = getattr(parent, attribute)
        # What it was before an earlier call changed it; kept out of the module's own parameters.
        self.module = self.now.__dict__.get("refract_dense", self.now)

    @property
    def transposed(self):
        return isinstance(self.module, Conv1D)

    @property
    def shape(self):
        """(out, in)"""
        return self.module.weight.shape[::-1] if self.transposed else self.module.weight.shape

    @property
    def holds_more(self):
        """Whether an earlier call put something there that the dense weight does not say: an adapter, or factors."""
        return any(isinstance(each, (modules.LoraLinear, StructuredLinear)) for each in self.now.modules())

    def restore(self):
        """Back to the dense layer, with the weight as it is now."""
        if self.now is not self.module:
            self.module.weight, self.module.bias = self.now.weight, self.now.bias
            self.put(self.module)

    def replace(self, module):
        device, dense = self.module.weight.device, self.module
        module.__dict__["refract_dense"] = dense
        self.put(module.to(device))

    def put(self, module):
        module.train(self.now.training)
        setattr(self.parent, self.attribute, module)
        self.now = module


def _llama_layer(layer, name):
    attention, mlp = layer.self_attn, layer.mlp
    places = [Place(attention, x, [f"{name}.self_attn.{x}"]) for x in ("q_proj", "k_proj", "v_proj", "o_proj")]
    places += [Place(mlp, x, [f"{name}.mlp.{x}"]) for x in ("gate_proj", "up_proj", "down_proj")]
    return attention, places


def _gpt2_layer(layer, name):
    fused = [f"{name}.self_attn.{x}_proj" for x in "qkv"]
    return layer.attn, [Place(layer.attn, "c_attn", fused), Place(layer.attn, "c_proj", [f"{name}.self_attn.o_proj"]),
                        Place(layer.mlp, "c_fc", [f"{name}.mlp.up_proj"]), Place(layer.mlp, "c_proj", [f"{name}.mlp.down_proj"])]


def _layers(model):
    """(attention, places, name) of every decoder layer."""
    family = model.config.model_type
    if family == "llama":
        layers, read = model.model.layers, _llama_layer
    elif family == "gpt2":
        layers, read = model.transformer.h, _gpt2_layer
    else:
        raise RuleError(f"rules can be applied to Llama and GPT-2 models, not to {family!r}")
    for index, layer in enumerate(layers):
        name = f"model.layers.{index}"
        yield (*read(layer, name), name + ".self_attn")


class _Application:
    def __init__(self, model, rules, seed):
        self.model, self.rules, self.seed = model, rules, seed
        # Layers of an earlier call go on counting by the same clock.
        self.clock = getattr(model, "refract_clock", None) or modules.Clock()
        self.adapters = []

    def settings(self, parameters, streams):
        return modules.OpticalSettings(parameters, streams, self.clock, self.seed)

    def check(self, places, name):
        """Whether every rule can stand for what it matches, before anything is changed."""
        kind, where = self.rules.find(name)
        if kind is not None and not isinstance(kind, Optical):
            raise RuleError(f"{where} matches {name!r}, but its kind can't stand for attention")
        if kind is not None and kind.compat == "mase-finetune":
            raise RuleError(f"{where} matches {name!r}: the attention of mase-finetune counts its calls, which only the program does; "
                            'give it compat = "mase-pretrain" or none')
        for place in places:
            found = [self.rules.find(member) for member in place.names]
            kind, where = found[0]
            if any(other is not kind for other, _ in found):
                raise RuleError(f"{place.names[0]} and its neighbours are one matrix in this model; give them one rule")
            if where is not None and place.holds_more:
                raise RuleError(f"{where} matches {place.names[0]!r}, which an earlier call gave an adapter or factors; applying another "
                                "rule would lose them, so let the rules pass it by")
            if isinstance(kind, (Lora, *STRUCTURED)):
                if len(place.names) > 1:
                    raise RuleError(f"{where}: q, k and v are one matrix in this model, which takes no adapter each, nor factors")
                # Builds the layer to see whether it can be built, and drops it.
                self.layer(kind, place.module, place.names, place.transposed)
        self.adapters = []

    def layer(self, kind, base, names, transposed=False):
        """A layer of the kind that starts as `base`, an nn.Linear or a Conv1D."""
        if kind is None:
            return base
        if isinstance(kind, Optical):
            return modules.OpticalLinear(base, names, self.settings(kind, names), transposed)
        if isinstance(kind, Lora):
            below = self.layer(kind.over, base, names, transposed)
            ins, outs = base.weight.shape if transposed else base.weight.shape[::-1]
            adapted = modules.LoraLinear(below, kind, ins, outs, transposed)
            self.adapters.append(adapted)
            return adapted
        inner = None if kind.over is None else lambda block, name: self.layer(kind.over, block, [name])
        return StructuredLinear(base, kind, names[0], transposed, inner)

    def linear(self, place):
        kind, where = self.rules.find(place.names[0])
        if where is None:
            return
        place.restore()
        if kind is not None:
            place.replace(self.layer(kind, place.module, place.names, place.transposed))

    def attention(self, module, name):
        kind, where = self.rules.find(name)
        if where is None:
            return
        if hasattr(module, "refract_attention"):
            del module.refract_attention
        if kind is None or kind.q_bypass:
            return
        optical = modules.OpticalAttention(self.settings(kind, [f"{name}.qk", f"{name}.av"]))
        module.refract_attention = optical.to(next(module.parameters()).device).train(module.training)

    def freeze(self):
        """Training an adapter leaves the model below it alone."""
        if not self.adapters:
            return
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for adapter in self.model.modules():
            if isinstance(adapter, modules.LoraLinear):
                for factor in (adapter.lora_A, adapter.lora_B):
                    factor.weight.requires_grad_(True)


def _padding(model, arguments, keywords):
    """Which tokens of a call of the model are not padding: bool [B, T], or None for all."""
    ids = arguments[0] if arguments else keywords.get("input_ids", keywords.get("inputs_embeds"))
    mask = arguments[1] if len(arguments) > 1 else keywords.get("attention_mask")
    if ids is None or mask is None or mask.dim() != 2 or mask.shape[1] < ids.shape[1]:
        return None
    tokens = mask[:, -ids.shape[1]:].bool()  # a cache's tokens stand before
    return None if tokens.all() else tokens.to(next(model.parameters()).device)


def _see_padding(model):
    def note(module, arguments, keywords):
        module.refract_clock.tokens = _padding(module, arguments, keywords)

    model.register_forward_pre_hook(note, with_kwargs=True)


def apply_rules(model: nn.Module, rules, seed: int = 1):
    """Moves the layers of a Hugging Face Llama or GPT-2 that `rules` match, in place, and returns the model.

    rules: a TOML file with [[transform]] tables, such as a recipe or a run's transforms.toml, or a list of such tables. Kinds:
    optical, lora, low_rank, block_dense, block_shuffle (each over dense layers or over another of them) and none. seed: of the noise,
    the program's run.seed. Where an adapter was put in, all other parameters are frozen. A second call changes the layers that its
    rules match, from their present weights, and leaves the others. Raises RuleError."""
    work = _Application(model, Rules(rules), seed)
    layers = list(_layers(model))
    for _, places, name in layers:
        work.check(places, name)
    work.rules.check_all_used(layers[0][2])
    for attention, places, name in layers:
        for place in places:
            work.linear(place)
        work.attention(attention, name)
    work.freeze()
    model.set_attn_implementation(ATTENTION)
    if not hasattr(model, "refract_clock"):
        _see_padding(model)
    model.refract_clock = work.clock
    return model


class ClockCallback(TrainerCallback):
    """Lets transformers' Trainer draw new noise in every step: Trainer(..., callbacks=[refract.ClockCallback()])."""

    def on_step_begin(self, args, state, control, model=None, **others):
        self.sequence = 0
        self.set(args, state, model)

    def on_substep_end(self, args, state, control, model=None, **others):
        self.sequence += args.train_batch_size * args.world_size
        self.set(args, state, model)

    def set(self, args, state, model):
        while not hasattr(model, "refract_clock") and hasattr(model, "module"):
            model = model.module  # wrapped for several processes
        modules.set_clock(model, state.global_step, self.sequence + args.process_index * args.train_batch_size)
