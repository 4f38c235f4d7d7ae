// Where a model's numbers live: parameters in one contiguous arena, other persistent state beside
// it.
//
// Layers first declare what they need (cheap, no memory), then the arena is allocated once. Order
// in the arena: trainable matrices, trainable vectors, guides, frozen parameters, so that weight
// decay, the optimizer and a collective each cover one range. Guides are matrices that only the
// beginning of a training run has (self-guided training): they are no part of the model, so
// parameters() leaves them out, and drop_guides() cuts them off. Parameters declared as a group lie
// side by side without gaps, and joint() is one leaf over all of them: the q, k, v weights are one
// [q + k + v, C] matrix to a GEMM and three tensors to a checkpoint.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace refract {

struct Init {
  enum class Kind { kZeros, kOnes, kNormal } kind = Kind::kZeros;
  double std = 0;  // of kNormal
  double cut = 0;  // of kNormal: what lies beyond +-cut is drawn again; 0: nothing is
  static Init zeros() { return {Kind::kZeros, 0}; }
  static Init ones() { return {Kind::kOnes, 0}; }
  static Init normal(double std, double cut = 0) { return {Kind::kNormal, std, cut}; }
};

struct Parameter {
  std::string name;            // "model.layers.0.mlp.up_proj.weight"
  std::vector<int64_t> shape;  // as a checkpoint sees it
  Init init;
  bool trainable = true;
  bool adapter = false;
  bool table = false;       // rows that tokens or positions choose: embeddings and head
  int64_t padded_rows = 0;  // rows in the arena; those past shape[0] are zero and stay zero
  bool joined = false;      // lies directly behind the parameter declared before it, if both train
                            // or neither does
  bool borrowed = false;    // lies in another arena, see allocate_beside()
  int64_t offset = -1;      // elements from the arena's start

  int64_t numel() const;         // of `shape`
  int64_t stored_numel() const;  // with padding rows
};

struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
  Init init;
  bool trainable = true;
  bool adapter = false;  // see freeze_all_but_adapters()
  bool table = false;
};

// Independent normal numbers of the stream `name`, float on the CPU: the same on every platform.
at::Tensor draw_normal(at::IntArrayRef shape, uint64_t seed, const std::string& name, double std);
// The same, with every number beyond +-cut replaced by the next of its own draws that is not: a
// normal distribution truncated there.
at::Tensor draw_truncated_normal(at::IntArrayRef shape, uint64_t seed, const std::string& name,
                                 double std, double cut);

// Where a name stands in a deque: a look through all of them for each makes the time to declare a
// model grow with the square of its layers.
using NamePlaces = std::map<std::string, size_t, std::less<>>;

class ParameterArena {
 public:
  // One parameter; with `pad_rows_to` its rows are padded to a multiple (tensor cores want aligned
  // sizes).
  Parameter* declare(const ParameterSpec& spec, int64_t pad_rows_to = 1);
  // Parameters that lie side by side: all matrices of equal width, or all vectors.
  std::vector<Parameter*> declare_group(const std::vector<ParameterSpec>& specs);

  // A trainable matrix beside the model, for as long as guides are not dropped. Its starting value
  // is its layer's to set.
  Parameter* declare_guide(const ParameterSpec& spec);

  // Where any parameter was declared as an adapter's: freezes all others, as training an adapter
  // leaves the model below it alone. Before allocate().
  void freeze_all_but_adapters();

  // Allocates the buffers. Values are kept in `master_dtype`, those of frozen parameters in
  // `compute_dtype` alone; the forward pass reads `compute_dtype`. A frozen parameter has no
  // gradient and no optimizer state.
  void allocate(at::Device device, at::ScalarType master_dtype, at::ScalarType compute_dtype);
  // For a model that stands beside another and never changes. The leaves of its parameters of these
  // names are views of `other`'s, which has them frozen in the same shapes; they have no value()
  // here. The rest gets buffers of its own in `dtype`. Nothing has a gradient.
  void allocate_beside(ParameterArena& other, const std::set<std::string>& shared,
                       at::Device device, at::ScalarType dtype);
  bool allocated() const { return master_.defined(); }

  // Draws every parameter from its own random stream (seed, name): the same on every device and
  // world size.
  void initialize(uint64_t seed);
  // Frees the guides: all buffers move to smaller ones. Leaves stay the tensors they are and see
  // the new buffers, but what holds addresses (a captured graph) has to go before. Does nothing
  // where there are no guides.
  void drop_guides();
  bool has_guides() const { return !guides_.empty(); }

  // Copies master values to the compute arena after they were written from outside the optimizer.
  void refresh_compute();

  // The autograd leaf the forward pass uses, with padding rows: [padded_rows, ...], compute dtype.
  // Its .grad is a view of grads().
  at::Tensor leaf(const Parameter* parameter);
  // One tensor over parameters of a group, stacked on dimension 0: a leaf where they are adjacent,
  // and otherwise (some of them are frozen) put together from their leaves, which has to be done
  // anew in each forward pass.
  at::Tensor joint_leaf(std::span<Parameter* const> parameters);
  bool adjacent(std::span<Parameter* const> parameters) const;

  // Views without padding rows, for checkpoints and tests: master values, or those of a frozen
  // parameter in the compute type, and compute-dtype gradients.
  at::Tensor value(const Parameter* parameter) const;
  at::Tensor gradient(const Parameter* parameter) const;

  // Whole buffers. grads() covers the trainable part, which comes first; its first
  // matrix_size() elements are matrices.
  const at::Tensor& master() const { return master_; }
  const at::Tensor& compute() const { return compute_; }
  const at::Tensor& grads() const { return grads_; }
  int64_t trainable_size() const { return trainable_size_; }
  int64_t matrix_size() const { return matrix_size_; }
  // The trainable part without the guides, which end it.
  int64_t core_size() const { return core_size_; }

  std::deque<Parameter>& parameters() { return parameters_; }
  const std::deque<Parameter>& parameters() const { return parameters_; }
  const std::deque<Parameter>& guides() const { return guides_; }
  Parameter* find(std::string_view name);
  int64_t count() const;            // parameters without padding
  int64_t trainable_count() const;  // of those, the trainable ones
  // A line per parameter (name, shape, place): equal for two arenas whose flat buffers mean the
  // same.
  std::string layout() const;

 private:
  struct Leaf {
    const Parameter* first;
    int64_t numel;
    std::vector<int64_t> shape;
    at::Tensor tensor;
  };
  void count_in(const Parameter& parameter);  // refuses what no machine holds
  void place();
  void point(Leaf& leaf);
  void borrow(ParameterArena& other, const std::vector<Parameter*>& group);
  at::Tensor view(const at::Tensor& flat, const Parameter* parameter) const;

  std::deque<Parameter> parameters_, guides_;  // stable addresses
  NamePlaces places_;                          // of parameters_
  std::map<std::string, Leaf> leaves_;         // by the names of what they are made of
  int64_t declared_ = 0;                       // values, guides and padding included
  at::Tensor master_, compute_, grads_;
  int64_t size_ = 0, trainable_size_ = 0, core_size_ = 0, matrix_size_ = 0;
};

// Persistent state that is not a parameter: running ranges, counters. Saved with every checkpoint,
// moved with the model.
class BufferStore {
 public:
  struct Buffer {
    std::string name;
    at::Tensor tensor;
  };
  // The tensor gives shape, dtype and starting value.
  Buffer* declare(std::string name, at::Tensor start);
  void to(at::Device device);
  std::deque<Buffer>& all() { return buffers_; }
  Buffer* find(std::string_view name);  // null if there is none

 private:
  std::deque<Buffer> buffers_;
  NamePlaces places_;
};

}  // namespace refract
