"""Deterministic weights, images and targets for the golden cases.

Everything here depends on numpy only and is a pure function of its arguments:
``fill(name, shape)`` gives the value of one state-dict entry, ``image(seed, h, w)``
one normalised image.  A golden case is therefore a manifest (key names, shapes,
aliases, image sizes) plus the outputs expected for it; no weight is stored.

Ties: modules that share one tensor appear in a state dict under several names.
The *canonical* name of such a group is its first name in sorted order; every name
of the group holds ``fill(canonical, shape)``.  The manifest's "aliases" maps each
non-canonical name to its canonical one.  ``state(manifest)`` does all of this.
"""

import hashlib
import re

import numpy as np

RULE_VERSION = 1

# tables looked up by row (queries, levels, labels): plain N(0,1), no fan-in scaling
_TABLE = re.compile(
    r"(query_embed|refpoint_embed|tgt_embed|query_feat|level_embed|label_enc|label_embedding|patterns(_embed)?"
    r"|row_embed|col_embed|denoising_class_embed|query_scale_table|queries_embedder|queries_features)"
    r"(\.weight)?$"
)
# entries whose value is a fixed constant of the architecture
_CONST = {"decoder.up": 0.5, "decoder.reg_scale": 4.0}


def seed_of(name):
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") % (2**31)


def normal(name, shape):
    """float32 N(0,1) of this shape, a function of the name alone."""
    return np.random.Generator(np.random.PCG64(seed_of(name))).standard_normal(shape, dtype=np.float32)


_GAIN = [  # first match wins; found by trial so that activations stay O(1) and outputs differ
    (r"\bconv3\.weight$", 0.8),  # last convolution of a ResNet bottleneck
    (r"input_proj\.(\d+\.)*weight$|input_proj\.\d+\.(conv|proj)\.weight$", 3.0),
    (r"in_proj_weight$|[qk]_proj\.weight$|[qk]_linear\.weight$|[sc]a_[qk]\w*_proj\.weight$", 2.0),
    (r"(multihead_attn|cross_attn)\.out(put)?_proj\.weight$", 3.0),
    (r"self_attn\.out(put)?_proj\.weight$", 0.25),
    (r"linear2\.weight$", 0.5),
    (r"(linear1|bbox_embed.*layers\.\d)\.weight$", 1.4),
]
# weights that read a ReLU output: their mean over fan-in is removed, otherwise the
# common positive part of the input drowns everything and all queries give the same answer
_CENTRED = re.compile(r"linear2\.weight$|layers\.[1-9]\.weight$")


def gain(name, shape):
    """Factor on 1/sqrt(fan_in)."""
    for pattern, g in _GAIN:
        if re.search(pattern, name):
            return g
    return 1.2 if len(shape) == 4 else 1.0


def fill(name, shape):
    """Value of the state-dict entry ``name`` of this shape (float32; int64 for counters)."""
    shape = tuple(int(s) for s in shape)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    for tail, value in _CONST.items():
        if name.endswith(tail):
            return np.full(shape, value, dtype=np.float32)
    x = normal(name, shape)
    if leaf == "running_var":
        return (1.0 + 0.1 * np.abs(x)).astype(np.float32)
    if _TABLE.search(name):
        return x
    if len(shape) <= 1:
        if name.endswith("activation.weight"):
            return (0.25 + 0.05 * x).astype(np.float32)  # PReLU slope
        if leaf in ("weight", "scale"):
            return (1.0 + 0.1 * x).astype(np.float32)
        if name.endswith("sampling_offsets.bias"):
            return x  # about one pixel, so that some samples leave the map
        if name.endswith("enc_output.bias"):
            # keeps the score of masked tokens, LayerNorm(bias), below the proposals that are
            # selected: masked tokens tie exactly, and a tie at the top-k border has no order
            return (0.001 * x).astype(np.float32)
        return (0.1 * x).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    x = x.astype(np.float64)
    if fan_in > 3 and (len(shape) == 4 or _CENTRED.search(name)):
        x = x - x.mean(axis=tuple(range(1, len(shape))), keepdims=True)
    return (x * (gain(name, shape) / np.sqrt(float(fan_in)))).astype(np.float32)


def state(manifest):
    """{key: array} for every key of a manifest, in the manifest's order."""
    aliases = manifest.get("aliases", {})
    out = {}
    for entry in manifest["state_dict"]:
        key = entry["key"]
        if key in manifest.get("kept", {}):
            continue  # a buffer that the architecture computes itself
        out[key] = fill(aliases.get(key, key), entry["shape"])
    return out


def _upsample(coarse, h, w, step):
    """Bilinear resampling with plain multiplies and adds (no transcendental functions)."""
    y = np.arange(h, dtype=np.float64) / step
    x = np.arange(w, dtype=np.float64) / step
    y0 = y.astype(np.int64)
    x0 = x.astype(np.int64)
    fy = (y - y0)[None, :, None]
    fx = (x - x0)[None, None, :]
    a = coarse[:, y0][:, :, x0]
    b = coarse[:, y0][:, :, x0 + 1]
    c = coarse[:, y0 + 1][:, :, x0]
    d = coarse[:, y0 + 1][:, :, x0 + 1]
    return (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy


def image(seed, h, w):
    """float32 [3, h, w], smooth blobs of three sizes plus fine noise, std about 1:
    what a normalised photograph looks like to a network.  Use it as is (already normalised)."""
    g = np.random.Generator(np.random.PCG64(int(seed)))
    out = np.zeros((3, h, w), dtype=np.float64)
    for step, amp in ((64, 0.8), (16, 0.6), (4, 0.4)):
        coarse = g.standard_normal((3, h // step + 2, w // step + 2), dtype=np.float32).astype(np.float64)
        out += amp * _upsample(coarse, h, w, step)
    out += 0.2 * g.standard_normal((3, h, w), dtype=np.float32).astype(np.float64)
    return out.astype(np.float32)


def batch(images):
    """images: list of {"seed","h","w"} -> (float32 [B,3,H,W] zero-padded at the right and bottom,
    bool mask [B,H,W], True on padding)."""
    H = max(i["h"] for i in images)
    W = max(i["w"] for i in images)
    x = np.zeros((len(images), 3, H, W), dtype=np.float32)
    m = np.ones((len(images), H, W), dtype=bool)
    for k, i in enumerate(images):
        x[k, :, : i["h"], : i["w"]] = image(i["seed"], i["h"], i["w"])
        m[k, : i["h"], : i["w"]] = False
    return x, m


def target(seed, n, num_classes):
    """{"boxes": float32 [n,4] cxcywh in 0..1, "labels": int64 [n]}; labels in 1..num_classes-1."""
    g = np.random.Generator(np.random.PCG64(int(seed)))
    u = g.random((n, 4), dtype=np.float32)
    wh = 0.1 + 0.4 * u[:, 2:]
    c = wh / 2 + (1 - wh) * u[:, :2]
    labels = g.integers(1, num_classes, size=(n,), dtype=np.int64)
    return {"boxes": np.concatenate([c, wh], 1).astype(np.float32), "labels": labels}


def target_masks(boxes, h, w):
    """uint8 [n, h, w]: for each cxcywh box the ellipse inscribed in it (no square roots)."""
    n = boxes.shape[0]
    ys = (np.arange(h, dtype=np.float64)[:, None] + 0.5) / h
    xs = (np.arange(w, dtype=np.float64)[None, :] + 0.5) / w
    out = np.zeros((n, h, w), dtype=np.uint8)
    for k in range(n):
        cx, cy, bw, bh = (float(v) for v in boxes[k])
        out[k] = (((xs - cx) / (bw / 2)) ** 2 + ((ys - cy) / (bh / 2)) ** 2 <= 1.0).astype(np.uint8)
    return out


def fingerprint():
    """Changes if numpy's random streams do; compare with the manifest before blaming the model."""
    h = hashlib.sha256()
    h.update(fill("transformer.encoder.layers.0.linear1.weight", (2048, 256)).tobytes())
    h.update(fill("backbone.0.body.bn1.running_var", (64,)).tobytes())
    h.update(image(11, 160, 192).tobytes())
    h.update(target(5, 4, 91)["boxes"].tobytes())
    h.update(target(5, 4, 91)["labels"].tobytes())
    return h.hexdigest()
