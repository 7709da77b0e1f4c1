"""Which ONNX operators TensorRT's parser has, from which version on, and which opsets it reads.

Read from onnx-tensorrt, `docs/operators.md` of 8.5, 9.2 and 10.15 and `docs/Changelog.md` up to 10.15. For newer versions the table of 10.15 stands until a
newer one is read. 9.x never was on a Jetson; the versions are the source's.
"""

from __future__ import annotations

from collections.abc import Mapping

SOURCE = "onnx-tensorrt docs/operators.md (8.5, 9.2, 10.15) and docs/Changelog.md"

OLDEST = "8.5"
"""Operators of `SINCE` with this version are in 8.5 or longer."""

_IN_8_5 = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant ConstantOfShape Conv
ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements
GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GRU HardSwish HardSigmoid Identity If InstanceNormalization
IsNaN LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg
NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
RNN RoiAlign Round Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split
Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""

SINCE: Mapping[str, str] = {
    **dict.fromkeys(_IN_8_5.split(), OLDEST),
    "GroupNormalization": "8.6",
    "IsInf": "8.6",
    "LayerNormalization": "8.6",
    "CastLike": "9.2",
    "Hardmax": "9.2",
    "Gelu": "10.0",
    "Mish": "10.0",
    "DeformConv": "10.1",
    "BlackmanWindow": "10.4",
    "HammingWindow": "10.4",
    "HannWindow": "10.4",
    "STFT": "10.5",
    "Attention": "10.14",
    "RMSNormalization": "10.15",
    "RotaryEmbedding": "10.15",
    "TensorScatter": "10.15",
}
"""Operator to the first version whose parser has it."""

INTEGER = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
"""Of the never supported ones, those that a quantizer for another engine writes; rule Q7 speaks of them."""

_IN_NONE = """
AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress ConcatFromSequence Det DFT ImageDecoder MaxRoiPool
MaxUnpool MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement RegexFullMatch SequenceAt
SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat
StringNormalizer StringSplit TfIdfVectorizer Unique
"""

NEVER = frozenset(_IN_NONE.split())
"""Operators that the newest table says are not supported."""

OPSETS: tuple[tuple[str, int, int], ...] = (
    ("8.5", 0, 17),
    ("10.0", 9, 20),
    ("10.9", 9, 22),
    ("10.13", 9, 24),
)
"""From this version on: the oldest opset (0 where none is stated) and the newest."""
