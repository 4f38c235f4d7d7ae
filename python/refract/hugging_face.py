"""Rules applied to models of Hugging Face `transformers`."""
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.pytorch_utils import Conv1D

from refract import modules
from refract.rules import Lora, Optical, RuleError, Rules

ATTENTION = "refract"  # the name of our attention among transformers' implementations


def _attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **options):
    optical = getattr(module, "refract_attention", None)
    if optical is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options)
    if attention_mask is not None:
        raise RuleError("optical attention is causal over sequences of one length; pass them without padding")
    if dropout:
        raise RuleError("optical attention has no dropout; set the model's attention dropout to 0")
    return optical(query, key, value, scaling if scaling is not None else query.shape[-1] ** -0.5), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class Place:
    """A linear module of a model, the names that rules know its layers by, and how it stores its weight."""

    def __init__(self, parent, attribute, names):
        self.parent, self.attribute, self.names = parent, attribute, names
        self.module = getattr(parent, attribute)

    @property
    def transposed(self):
        return isinstance(self.module, Conv1D)

    def replace(self, module):
        module.train(self.module.training)
        setattr(self.parent, self.attribute, module.to(self.module.weight.device))


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
        self.model, self.rules, self.seed, self.clock = model, rules, seed, modules.Clock()
        self.adapters = []

    def settings(self, parameters, streams):
        return modules.OpticalSettings(parameters, streams, self.clock, self.seed)

    def check(self, places, name):
        """Whether every rule can stand for what it matches, before anything is changed."""
        kind, where = self.rules.find(name)
        if isinstance(kind, Lora):
            raise RuleError(f"{where} matches {name!r}, but its kind can't stand for attention")
        for place in places:
            found = [self.rules.find(member) for member in place.names]
            kind, where = found[0]
            if any(other is not kind for other, _ in found):
                raise RuleError(f"{place.names[0]} and its neighbours are one matrix in this model; give them one rule")
            if isinstance(kind, Lora) and len(place.names) > 1:
                raise RuleError(f"{where}: q, k and v are one matrix in this model, which takes no adapter each")

    def linear(self, place):
        kind, _ = self.rules.find(place.names[0])
        if kind is None:
            return
        base = place.module
        optical = kind.over if isinstance(kind, Lora) else kind
        if isinstance(optical, Optical):
            base = modules.OpticalLinear(base, place.names, self.settings(optical, place.names), place.transposed)
        if isinstance(kind, Lora):
            shape = place.module.weight.shape if place.transposed else place.module.weight.shape[::-1]
            base = modules.LoraLinear(base, kind, *shape, place.transposed)
            self.adapters.append(base)
        place.replace(base)

    def attention(self, module, name):
        kind, _ = self.rules.find(name)
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
        for adapter in self.adapters:
            for factor in (adapter.lora_A, adapter.lora_B):
                factor.weight.requires_grad_(True)


def apply_rules(model: nn.Module, rules, seed: int = 1):
    """Moves the layers of a Hugging Face Llama or GPT-2 that `rules` match, in place, and returns the model.

    rules: a TOML file with [[transform]] tables, such as a recipe or a run's transforms.toml, or a list of such tables. Kinds:
    optical, lora (over dense or optical), none. seed: of the noise, the program's run.seed. Where an adapter was put in, all other
    parameters are frozen. Raises RuleError."""
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
    model.refract_clock = work.clock
    return model
