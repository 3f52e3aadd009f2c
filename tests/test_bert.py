# Generated from chapters/day11_deeper.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.bert`."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from minitransformer.bert import config_from_bert, config_to_bert, from_bert, to_bert
from minitransformer.encoder import TransformerEncoder
from minitransformer.model import ModelConfig


# chapters/day11_deeper.md · The table of names
def tiny_bert(seed: int = 0, **changes: object) -> tuple[Any, ModelConfig]:
    """A random `BertModel` in float64 and evaluation mode, with weights large enough to show a mistake."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    sizes = {"vocab_size": 31, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    sizes |= {"num_hidden_layers": 2, "max_position_embeddings": 13, "type_vocab_size": 2}
    settings = BertConfig(**sizes | changes)
    model = BertModel(settings, add_pooling_layer=False).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, config_from_bert(settings.to_dict())


# chapters/day11_deeper.md · The table of names
def our_encoder(bert: Any, config: ModelConfig) -> TransformerEncoder:
    settings = asdict(config)
    del settings["num_labels"], settings["pooling"]
    encoder = TransformerEncoder(**settings).double().eval()
    encoder.load_state_dict(from_bert(bert.state_dict(), config.num_layers))
    return encoder


# chapters/day11_deeper.md · The table of names
def bert_batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 31, (4, 11), generator=generator)
    mask = torch.arange(11) < torch.tensor([[11], [3], [7], [1]])
    types = torch.randint(0, 2, (4, 11), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


# chapters/day11_deeper.md · The table of names
def test_our_encoder_is_bert():
    variants = [
        {},
        {"num_hidden_layers": 3, "hidden_act": "relu"},
        {"num_attention_heads": 8, "layer_norm_eps": 0.1},
    ]
    for seed, variant in enumerate(variants):
        bert, config = tiny_bert(seed, **variant)
        ours, batch = our_encoder(bert, config), bert_batch()
        mine, theirs = ours(**batch), bert(**batch).last_hidden_state
        real = batch["attention_mask"]
        torch.testing.assert_close(mine[real], theirs[real], rtol=0, atol=1e-10)
        weight = torch.randn_like(mine) * real[:, :, None]
        (mine * weight).sum().backward()
        (theirs * weight).sum().backward()
        gradients = from_bert({n: p.grad for n, p in bert.named_parameters()}, config.num_layers)
        for name, parameter in ours.named_parameters():
            if name == "embedding.weight":
                parameter.grad[0] = gradients[name][0] = 0.0
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-10, msg=name)
        back = to_bert(ours.state_dict(), config.num_layers)
        assert back.keys() == bert.state_dict().keys(), "nothing is left out"
        assert all(torch.equal(back[name], value) for name, value in bert.state_dict().items())
        again = config_from_bert(config_to_bert(config))
        assert again == config
