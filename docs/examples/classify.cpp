// Runs the OpenVINO model of an unpacked bundle, without edgekit and without Python.
//
//     classify MODEL.xml FRAMES.npy TASK TEMPERATURE KEY=VALUE…
//
// FRAMES.npy holds uint8 (frames, height, width, channels) as the graph takes them, for example the bundle's golden/frames.npy.
// TASK and TEMPERATURE are output.task and decision.temperature of manifest.json; the KEY=VALUE are engines[0].settings, all of them.
// Prints one JSON object a frame. What it does not do is preprocess (see the page) and check digests (see unpack.py): do both in a product.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

namespace {

// The bundle's NPY members: version 1.0, C order (docs/bundle-format.md, section 5). The shape is the graph's, so it is not parsed again.
std::vector<std::uint8_t> read_frames(const std::string& path, std::size_t frame_bytes) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> data((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (data.size() < 10 || std::memcmp(data.data(), "\x93NUMPY\x01\x00", 8) != 0) throw std::runtime_error(path + " is not an NPY 1.0 file");
    const auto low = static_cast<unsigned char>(data[8]), high = static_cast<unsigned char>(data[9]);
    const std::size_t start = 10 + low + 256 * static_cast<std::size_t>(high);
    if (start > data.size()) throw std::runtime_error(path + " is truncated");
    const std::string header(data.data() + 10, start - 10);
    if (header.find("'descr': '|u1'") == std::string::npos) throw std::runtime_error(path + " does not hold uint8");
    const std::vector<std::uint8_t> frames(data.begin() + static_cast<std::ptrdiff_t>(start), data.end());
    if (frames.empty() || frames.size() % frame_bytes != 0) throw std::runtime_error(path + " does not hold frames of the size the graph takes");
    return frames;
}

// multiclass, and binary with two outputs: softmax. multilabel, and binary with one output: a sigmoid each.
std::vector<double> probabilities(const float* logits, std::size_t count, const std::string& task, double temperature) {
    std::vector<double> result(logits, logits + count);
    for (double& value : result) value /= temperature;
    if (task == "multilabel" || (task == "binary" && count == 1)) {
        for (double& value : result) value = 1.0 / (1.0 + std::exp(-value));
        return result;
    }
    const double largest = *std::max_element(result.begin(), result.end());
    double sum = 0.0;
    for (double& value : result) sum += value = std::exp(value - largest);
    for (double& value : result) value /= sum;
    return result;
}

template <typename Value>
void print_list(const char* name, const Value* values, std::size_t count) {
    std::printf("\"%s\": [", name);
    for (std::size_t i = 0; i < count; ++i) std::printf("%s%.9g", i ? ", " : "", static_cast<double>(values[i]));
    std::printf("]");
}

// Mean and peak of each output's map. mean + cam.bias, or + the third output where that is empty, is the logit; where it is not, within cam.tolerance, the map must not be shown.
void print_maps(const ov::Tensor& cam) {
    const ov::Shape shape = cam.get_shape();
    const std::size_t cells = shape[2] * shape[3];
    std::vector<double> means, peaks;
    for (std::size_t output = 0; output < shape[1]; ++output) {
        const float* map = cam.data<const float>() + output * cells;
        double sum = 0.0;
        for (std::size_t cell = 0; cell < cells; ++cell) sum += map[cell];
        means.push_back(sum / static_cast<double>(cells));
        peaks.push_back(static_cast<double>(std::max_element(map, map + cells) - map));
    }
    std::printf(", \"map\": {\"rows\": %zu, \"columns\": %zu, ", shape[2], shape[3]);
    print_list("means", means.data(), means.size());
    std::printf(", ");
    print_list("peak_cells", peaks.data(), peaks.size());
    std::printf("}");
}

ov::CompiledModel open_model(const std::string& path, int count, char** settings) {
    ov::AnyMap properties;
    std::string precision;
    for (int i = 0; i < count; ++i) {
        const std::string setting = settings[i];
        const std::size_t equals = setting.find('=');
        if (equals == std::string::npos) throw std::runtime_error(setting + " is not KEY=VALUE");
        properties[setting.substr(0, equals)] = setting.substr(equals + 1);
        if (setting.substr(0, equals) == "INFERENCE_PRECISION_HINT") precision = setting.substr(equals + 1);
    }
    ov::CompiledModel compiled = ov::Core().compile_model(path, "CPU", properties);
    // A CPU with bfloat16 would use it where nothing is pinned, and other logits than the proven ones would come out.
    const auto found = compiled.get_property("INFERENCE_PRECISION_HINT").as<std::string>();
    if (precision.empty() || found != precision) throw std::runtime_error("the model runs in " + found + ", the bundle pins '" + precision + "'");
    return compiled;
}

void run(int argc, char** argv) {
    const std::string task = argv[3];
    const double temperature = std::stod(argv[4]);
    ov::CompiledModel compiled = open_model(argv[1], argc - 5, argv + 5);
    const ov::Shape shape = compiled.input().get_shape();  // 1, height, width, channels
    const std::size_t frame_bytes = ov::shape_size(shape);
    std::vector<std::uint8_t> frames = read_frames(argv[2], frame_bytes);
    ov::InferRequest request = compiled.create_infer_request();
    for (std::size_t frame = 0; frame < frames.size() / frame_bytes; ++frame) {
        request.set_input_tensor(ov::Tensor(ov::element::u8, shape, frames.data() + frame * frame_bytes));
        request.infer();
        const ov::Tensor logits = request.get_output_tensor(0);  // 1, outputs
        const float* values = logits.data<const float>();
        if (!std::all_of(values, values + logits.get_size(), [](float value) { return std::isfinite(value); })) {
            throw std::runtime_error("frame " + std::to_string(frame) + " has logits that are NaN or infinite");
        }
        const std::vector<double> probability = probabilities(values, logits.get_size(), task, temperature);
        std::printf("{\"frame\": %zu, ", frame);
        print_list("logits", values, logits.get_size());
        std::printf(", ");
        print_list("probabilities", probability.data(), probability.size());
        if (compiled.outputs().size() > 1) print_maps(request.get_output_tensor(1));  // 1, outputs, rows, columns
        std::printf("}\n");
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 6) {
        std::cerr << "usage: classify MODEL.xml FRAMES.npy TASK TEMPERATURE KEY=VALUE...\n";
        return 2;
    }
    try {
        run(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << "\n";
        return 1;
    }
    return 0;
}
