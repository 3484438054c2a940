"""The tokenizer for text: the convolutions of LlamaGen's VQ-8, f8, eight of 4096 codes a position.

    python scripts/train.py --config configs/tokenizer/legible.py --workdir runs/large/legible \
        --config.perceptual.weights=VGG16.safetensors

96 bits a position are 1.5 a pixel, as many as the best discrete tokenizer of TokBench has (MGVQ-g8
f8: 1.375) and 27 times VQ-16's. Codes are averages of what they are chosen for (EMA), and glyphs'
edges weigh .2: of what was measured on small pages (LOG.md, quantizers) the two best.

Hardware (configs/large.py): v5p-256 and v6e-256 (one or two pages a chip) and 64 H100s (four) run
it as it is: every chip holds all of it.

Schedule: AdamW at 1e-4, 4,000 steps of warm-up, then a cosine to a tenth, 200,000 steps in all; the
critic joins after 20,000. Expected tokens: 1677.7 billion codes, 256 pages of 4096 positions of 8
codes a step.

Parameters: 70,007,491 (70M by LlamaGen's README for VQ-8): encoder 28,575,680, decoder 41,431,811.
The codebooks are statistics, 262,144 numbers; the critic has 2,765,633.

HBM per chip (preflight): 28.7 GB of 102 on v5p:4x4x8, MFU at most .376
(by memory traffic; without the perceptual loss, whose weights were not there).
Expected word accuracy: not measured yet.
"""

from ml_collections import ConfigDict

from configs import large
from configs.tokenizer import vq16


def get_config() -> ConfigDict:
    """VQ-16's config with twice the positions, eight codes at each, and a loss for text."""
    config = vq16.get_config()
    config.model.backbone.downsampling = 8
    config.model.backbone.conv.multipliers = (1, 2, 2, 4)
    config.model.quantizer.update(name="product", part="vq", num_codes=8)
    config.model.quantizer.codebook.update(size=4096, cosine=False, learning="ema")
    config.losses.update(l1=1.0, l2=0.0, text_edges=0.2)
    config.critic.update(weight=0.1, adaptive=True, lecam=0.01)
    config.data.page.update(**large.SMALL_TYPE)
    return config
