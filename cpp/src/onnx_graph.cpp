// Surgery on ONNX models: an input for every path in place of the image; see lpsnet/inference/onnx_graph.py.
//
// An ONNX graph is a list of nodes that name the tensors they read and write. A part of it is a shorter list with other
// inputs and outputs declared; the rest is copied byte for byte. The tensors that the image is resized to are told
// apart by their sizes, which the engine is asked for.
#include "onnx_graph.hpp"

#include <algorithm>
#include <array>
#include <set>

namespace lpsnet {
namespace {

// Field numbers of onnx.proto: ModelProto, GraphProto, NodeProto and its attributes, TensorProto, ValueInfoProto,
// TypeProto
constexpr std::uint32_t model_graph = 7;
constexpr std::uint32_t graph_node = 1, graph_weight = 5, graph_input = 11, graph_output = 12, graph_value = 13;
constexpr std::uint32_t node_input = 1, node_output = 2, node_operator = 4, node_attribute = 5;
constexpr std::uint32_t attribute_graph = 6, attribute_graphs = 11, weight_name = 8, weight_outside = 13;
constexpr std::uint32_t value_name = 1, value_type = 2, type_tensor = 1, tensor_element = 1, tensor_shape = 2;
constexpr std::uint32_t shape_dimension = 1, dimension_number = 1, dimension_name = 2;

// The model is whole, but of a kind that cannot be cut
struct CannotCut {};

// A dimension: a number, or a name where `is_free`
struct Dimension {
    bool is_free = true;
    std::int64_t number = 0;
    std::string name;
};

struct Port {
    std::string name;
    std::uint64_t element = 0;  // TensorProto.DataType
    std::vector<Dimension> shape;
};

struct Node {
    std::string operation;
    std::vector<std::string> inputs, outputs;
    std::string_view source;
};

template <class Use>
void each_field(std::string_view message, Use use) {
    while (const auto field = next_field(message)) use(*field);
}

template <class Use>
void each_field(std::string_view message, std::uint32_t number, Use use) {
    each_field(message, [&](const Field &field) {
        if (field.number == number) use(field);
    });
}

std::string text_of(const Field &field) {
    return field.wire_type == wire_bytes && field.content.size() <= 16'000'000 ? std::string(field.content) : "";
}

bool holds(std::string_view message, std::uint32_t number) {
    bool found = false;
    each_field(message, number, [&](const Field &) { found = true; });
    return found;
}

Port port_of(std::string_view message) {
    Port port;
    each_field(message, [&](const Field &field) {
        if (field.number == value_name) port.name = text_of(field);
        if (field.number != value_type) return;
        each_field(field.content, type_tensor, [&](const Field &tensor) {
            bool is_first = true;
            each_field(tensor.content, tensor_element, [&](const Field &element) {
                if (is_first) port.element = element.value;
                is_first = false;
            });
            each_field(tensor.content, tensor_shape, [&](const Field &shape) {
                each_field(shape.content, shape_dimension, [&](const Field &dimension) {
                    std::string_view rest = dimension.content;
                    Dimension length;
                    if (const auto first = next_field(rest)) {
                        length.is_free = first->number != dimension_number;
                        length.number = static_cast<std::int64_t>(first->value);
                        length.name = text_of(*first);
                    }
                    port.shape.push_back(length);
                });
            });
        });
    });
    return port;
}

Node node_of(const Field &field) {
    Node node;
    node.source = field.whole;
    each_field(field.content, [&](const Field &item) {
        if (item.number == node_operator) node.operation = text_of(item);
        if (item.number == node_input) node.inputs.push_back(text_of(item));
        if (item.number == node_output) node.outputs.push_back(text_of(item));
        if (item.number == node_attribute &&
            (holds(item.content, attribute_graph) || holds(item.content, attribute_graphs)))
            throw CannotCut();  // a graph inside may use any tensor
    });
    return node;
}

// Writing

void put_varint(std::string &to, std::uint64_t value) {
    for (; value > 0x7F; value >>= 7) to += static_cast<char>((value & 0x7F) | 0x80);
    to += static_cast<char>(value);
}

std::string message(std::uint32_t number, std::string_view content) {
    std::string field;
    put_varint(field, std::uint64_t{number} << 3 | wire_bytes);
    put_varint(field, content.size());
    return field.append(content);
}

std::string number_field(std::uint32_t number, std::uint64_t value) {
    std::string field;
    put_varint(field, std::uint64_t{number} << 3 | wire_varint);
    put_varint(field, value);
    return field;
}

std::string value_info(const Port &port) {
    std::string shape;
    for (const Dimension &length : port.shape)
        shape += message(
            shape_dimension, length.is_free
                                 ? message(dimension_name, length.name)
                                 : number_field(dimension_number, static_cast<std::uint64_t>(length.number)));
    const std::string tensor = number_field(tensor_element, port.element) + message(tensor_shape, shape);
    return message(value_name, port.name) + message(value_type, message(type_tensor, tensor));
}

// A list of names with what belongs to each; a name that comes twice keeps its place and gets the last value
class Named {
  public:
    void set(const std::string &name, std::string_view value) {
        const auto [found, is_new] = places_.try_emplace(name, items_.size());
        if (is_new)
            items_.emplace_back(name, value);
        else
            items_[found->second].second = value;
    }
    const std::string_view *find(const std::string &name) const {
        const auto found = places_.find(name);
        return found == places_.end() ? nullptr : &items_[found->second].second;
    }
    const std::vector<std::pair<std::string, std::string_view>> &items() const { return items_; }

  private:
    std::map<std::string, std::size_t> places_;
    std::vector<std::pair<std::string, std::string_view>> items_;
};

struct Graph {
    std::vector<Port> inputs;          // without weights
    std::vector<std::string> outputs;  // names
    std::vector<Node> nodes;           // in an order of computation
    Named weights, output_sources;
    std::string around, within;  // the model's fields but the graph; the graph's other fields

    explicit Graph(std::string_view model) {
        std::vector<std::string_view> graphs;
        each_field(model, [&](const Field &field) {
            if (field.number == model_graph)
                graphs.push_back(field.content);
            else
                around += field.whole;
        });
        if (graphs.size() != 1) throw Error("it has " + std::to_string(graphs.size()) + " graphs");
        std::vector<Port> ports;
        each_field(graphs[0], [&](const Field &field) {
            switch (field.number) {
                case graph_node: nodes.push_back(node_of(field)); break;
                case graph_weight: add_weight(field); break;
                case graph_input: ports.push_back(port_of(field.content)); break;
                case graph_output:
                    outputs.push_back(port_of(field.content).name);
                    output_sources.set(outputs.back(), field.whole);
                    break;
                case graph_value: break;  // engines find the shapes inside again
                default: within += field.whole;
            }
        });
        std::copy_if(ports.begin(), ports.end(), std::back_inserter(inputs), [&](const Port &port) {
            return !weights.find(port.name);
        });
    }

    // The model that computes the tensors `to` from the tensors `from`
    std::string cut(const std::vector<Port> &from, const std::vector<std::string> &to) const {
        std::set<std::string> names, used;
        for (const Port &port : from) names.insert(port.name);
        const std::vector<bool> needed = leading_to(to, names);
        std::string graph = within;
        for (std::size_t i = 0; i < nodes.size(); i++) {
            if (!needed[i]) continue;
            graph += nodes[i].source;
            used.insert(nodes[i].inputs.begin(), nodes[i].inputs.end());
        }
        for (const auto &[name, source] : weights.items())
            if (used.count(name)) graph += source;
        for (const Port &port : from) graph += message(graph_input, value_info(port));
        for (const std::string &name : to) {
            const std::string_view *const own = output_sources.find(name);
            graph += own ? std::string(*own) : message(graph_output, message(value_name, name));
        }
        return around + message(model_graph, graph);
    }

  private:
    void add_weight(const Field &field) {
        if (holds(field.content, weight_outside)) throw CannotCut();  // kept outside of the file
        std::string name;
        bool is_first = true;
        each_field(field.content, weight_name, [&](const Field &item) {
            if (is_first) name = text_of(item);
            is_first = false;
        });
        weights.set(name, field.whole);
    }

    // Which nodes the tensors `to` depend on, up to `from`; all of these must be needed, and no other input
    std::vector<bool> leading_to(const std::vector<std::string> &to, const std::set<std::string> &from) const {
        std::map<std::string, std::size_t> makers;
        for (std::size_t i = 0; i < nodes.size(); i++)
            for (const std::string &name : nodes[i].outputs) makers[name] = i;
        std::set<std::string> ends = from, seen, reached;
        for (const Port &port : inputs) ends.insert(port.name);
        std::vector<bool> needed(nodes.size(), false);
        for (std::vector<std::string> waiting = to; !waiting.empty();) {
            const std::string name = waiting.back();
            waiting.pop_back();
            if (name.empty() || !seen.insert(name).second) continue;  // an empty name is an argument left out
            if (ends.count(name)) {
                reached.insert(name);
            } else if (const auto maker = makers.find(name); maker != makers.end()) {
                needed[maker->second] = true;
                const Node &node = nodes[maker->second];
                waiting.insert(waiting.end(), node.inputs.begin(), node.inputs.end());
            }
        }
        if (reached != from) throw CannotCut();
        return needed;
    }
};

// The tensors that the image is resized to
std::vector<std::string> resized_images(const Graph &graph) {
    static const std::array<std::string, 3> same_image = {"Cast", "QuantizeLinear", "DequantizeLinear"};
    std::set<std::string> same = {graph.inputs[0].name};
    std::vector<std::string> names;
    for (const Node &node : graph.nodes) {
        if (node.inputs.empty() || !same.count(node.inputs[0])) continue;
        if (std::find(same_image.begin(), same_image.end(), node.operation) != same_image.end())
            same.insert(node.outputs.begin(), node.outputs.end());
        else if (node.operation == "Resize")
            names.insert(names.end(), node.outputs.begin(), node.outputs.end());
    }
    return names;
}

Dimension fixed(std::int64_t number) { return {false, number, ""}; }
Dimension free_length(const std::string &name) { return {true, 0, name}; }

std::string split(const Graph &graph, const std::vector<Ratio> &ratios, Size size, const Measure &measure) {
    if (graph.inputs.size() != 1 || graph.inputs[0].shape.size() != 4) throw CannotCut();
    const Port &image = graph.inputs[0];
    const Dimension &channels = image.shape[1], &height = image.shape[2], &width = image.shape[3];
    const auto own = [](const Dimension &length, int asked, int tried) {
        if (!length.is_free && (length.number < 1 || length.number > 1 << 20)) throw CannotCut();
        return !length.is_free ? static_cast<int>(length.number) : asked ? asked : tried;
    };
    const Size tried{own(height, size.height, tried_size.height), own(width, size.width, tried_size.width)};
    if (size != Size{} && tried != size) throw CannotCut();
    const bool is_fixed = size != Size{} || (!height.is_free && !width.is_free);
    const std::vector<std::string> names = resized_images(graph);
    if (names.empty() || channels.is_free) throw CannotCut();

    Port probe = image;
    probe.shape = {fixed(1), channels, fixed(tried.height), fixed(tried.width)};
    const auto chosen = choose_paths(measure(graph.cut({probe}, names), names), ratios, tried);
    if (!chosen) throw CannotCut();
    std::vector<Port> inputs;
    for (std::size_t path = 0; path < ratios.size(); path++) {
        Port port = image;
        if ((*chosen)[path] >= 0) port.name = names[static_cast<std::size_t>((*chosen)[path])];
        const Size at = path_size(tried, ratios[path]);
        const std::string number = std::to_string(path);
        if (is_fixed)
            port.shape = {fixed(1), channels, fixed(at.height), fixed(at.width)};
        else
            port.shape = {
                free_length("batch"), channels, free_length("height_" + number), free_length("width_" + number)};
        inputs.push_back(port);
    }
    return graph.cut(inputs, graph.outputs);
}

}  // namespace

bool is_quantised(std::string_view model) {
    static const std::set<std::string> operators = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger"};
    bool found = false;
    each_field(model, model_graph, [&](const Field &graph) {
        each_field(graph.content, graph_node, [&](const Field &node) {
            each_field(
                node.content, node_operator, [&](const Field &item) { found |= operators.count(text_of(item)) > 0; });
        });
    });
    return found;
}

std::optional<std::string> split_at_paths(
    std::string_view model, const std::vector<Ratio> &ratios, Size size, const Measure &measure) {
    try {
        return split(Graph(model), ratios, size, measure);
    } catch (const CannotCut &) {
        return std::nullopt;
    }
}

}  // namespace lpsnet
