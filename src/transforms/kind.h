// A kind: one compute paradigm for linear layers, for attention, or for both.
//
// A kind is one file: src/transforms/kinds/<name>.cpp, or a plug-in's. It describes its parameters
// once (core/config.h), builds layers, and ends with REFRACT_KIND, which enters it in the registry.
// An object of a kind holds the parameters of one rule.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/config.h"
#include "model/slots.h"
#include "transforms/energy.h"

namespace refract {

class Kind {
 public:
  virtual ~Kind() = default;

  // Its name in the registry; empty for an object that make_kind() did not make.
  const std::string& name() const { return name_; }

  // The rule's parameters, with defaults, limits and help. Keys are plain: "rank", "q_levels".
  virtual void describe(Fields& /*fields*/) {}
  // Called once after the parameters were set: refuses those that contradict each other, by
  // fail_usage(). `where` names the rule.
  virtual void check(const std::string& /*where*/) const {}

  // Whether this kind, with its parameters, stands for linear layers, for attention.
  virtual bool transforms_linear() const { return false; }
  virtual bool transforms_attention() const { return false; }
  // Whether its gradients are, by definition, those of the dense layer with the merged weight: the
  // straight-through estimator of a layer whose forward pass has none.
  virtual bool straight_through() const { return false; }
  // Whether self-guided training puts a dense guide beside its linear layers.
  virtual bool takes_guide() const { return false; }
  // Refuses a shape it can't do, by fail_usage() with what would do.
  virtual void check_shape(const LinearSpec& /*spec*/) const {}

  // The layer without its bias. Declares its parameters, "<name>.<something>", in build.arena.
  virtual std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const;
  virtual std::unique_ptr<AttentionCore> attention(Build build, const AttentionSpec& spec) const;
  // A fused form of a group whose members all follow this rule; null: the members in turn. The
  // members must be entered in build.transformed by enter() under name().
  virtual std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const;

  // Joules that a product of one of its modules takes for a token. The default is digital
  // arithmetic of 8 bits for everything that it multiplies; a kind whose products take place
  // elsewhere, or in numbers of another width, says so here.
  virtual Energy energy(const ProductShape& product, const EnergyConstants& constants) const;

  // For benchmarks: the parameters of a rule, as a JSON object, that leave a feed-forward of
  // `width` about this share of its dense weights. "{}": the kind has no size to choose.
  virtual std::string parameters_for_share(int64_t width, double share) const;

 private:
  friend std::unique_ptr<Kind> make_kind(const std::string& table_json, const std::string& where);
  std::string name_;
};

// What the registry knows of a kind before a rule uses it.
struct KindEntry {
  std::string name;     // "low_rank"
  std::string summary;  // one line
  std::unique_ptr<Kind> (*make)();
};

template <class T>
KindEntry kind_entry(std::string name, std::string summary) {
  return {std::move(name), std::move(summary),
          []() -> std::unique_ptr<Kind> { return std::make_unique<T>(); }};
}

// Enters a kind from outside src/transforms/kinds/. Fails (usage) where the name is taken.
void register_kind(KindEntry entry);
template <class T>
void register_kind(std::string name, std::string summary) {
  register_kind(kind_entry<T>(std::move(name), std::move(summary)));
}

// All kinds: the built-in ones by name, then those of plug-ins in the order of their registration.
const std::vector<KindEntry>& registered_kinds();
// Fails (usage) with the nearest name where there is none.
const KindEntry& find_kind(std::string_view name);
// A kind with its parameters set from a rule's table: {"kind": "low_rank", "rank": 4}; the keys
// "match" and "kind" are left to the caller. A plain string is a kind with its defaults. `where`
// names the rule in errors.
std::unique_ptr<Kind> make_kind(const std::string& table_json, const std::string& where);

// Enters a layer in build.transformed.
void enter(Build build, const LinearSpec& spec, std::string kind, LinearLayer* layer);

}  // namespace refract

// The last statement of a kind's file, in the tree and in a plug-in:
//
//     REFRACT_KIND(low_rank, LowRank, "two factors with a small inner width: U (V x)");
//
// In the tree `name` is the file's name too: the build lists the files of src/transforms/kinds/ in
// generated/builtin_kinds.h, and the linker misses refract_kind_<name>() where a file forgot it.
// What registers a kind is a function and not a static initialiser, because a linker drops an
// object that nothing refers to, and because an error can't be caught across dlopen().
#ifdef REFRACT_PLUGIN_ABI  // by scripts/plugin
// In place of REFRACT_KIND, once: the block that follows calls register_kind<Class>(name, summary)
// for each kind of a plug-in that has several.
// Their version stands in a section of its own, which the program reads before it opens the file:
// whatever dlopen() may call of a plug-in is then of the program's own headers.
#define REFRACT_PLUGIN                                                                        \
  __attribute__((section(".refract.abi"), used)) static const char refract_plugin_version[] = \
      REFRACT_PLUGIN_ABI;                                                                     \
  extern "C" void refract_register()
#define REFRACT_KIND(name, Class, summary)                          \
  REFRACT_PLUGIN { refract::register_kind<Class>(#name, summary); } \
  static_assert(std::is_base_of_v<refract::Kind, Class>, #Class " is not a refract::Kind")
#else
#define REFRACT_KIND(name, Class, summary)                                              \
  extern "C" const refract::KindEntry* refract_kind_##name() {                          \
    static const refract::KindEntry entry = refract::kind_entry<Class>(#name, summary); \
    return &entry;                                                                      \
  }                                                                                     \
  static_assert(std::is_base_of_v<refract::Kind, Class>, #Class " is not a refract::Kind")
#endif
