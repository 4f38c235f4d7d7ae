// A kind: one compute paradigm for linear layers, for attention, or for both.
//
// One file per kind. It names itself, describes its parameters once (core/config.h), builds layers,
// and is entered in the registry. An object of a kind holds the parameters of one rule.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"
#include "model/slots.h"

namespace refract {

class Kind {
 public:
  virtual ~Kind() = default;

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
  // members must be entered in build.transformed by enter().
  virtual std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const;
};

// What the registry knows of a kind before a rule uses it.
struct KindEntry {
  std::string name;     // "low_rank"
  std::string summary;  // one line
  std::unique_ptr<Kind> (*make)();
};

// Fails where the name is taken.
void register_kind(KindEntry entry);
// All kinds: the built-in ones and those of plug-ins, by name.
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
