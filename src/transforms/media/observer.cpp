#include "transforms/media/observer.h"

namespace refract {
namespace {

MediumObserver*& current() {
  static MediumObserver* observer = nullptr;
  return observer;
}

}  // namespace

MediumObserver* medium_observer() { return current(); }

ObserverScope::ObserverScope(MediumObserver& observer) : before_(current()) {
  current() = &observer;
}

ObserverScope::~ObserverScope() { current() = before_; }

}  // namespace refract
