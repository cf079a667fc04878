package verify

import "slices"

// Worse returns the failures of now that are not in baseline: the same check of
// the same target failing with the same kind, and where a name has several
// addresses, at no other ones. A check that was cancelled, or
// that cannot be carried out, tells nothing of its target and is always worse.
func Worse(baseline, now Report) []Finding {
	type look struct{ check, typ, target, kind string }
	key := func(f Finding) look {
		return look{f.Check, string(f.Type), f.Target, string(f.Kind)}
	}
	before := map[look]Finding{}
	for _, f := range baseline.Failed() {
		if f.Kind != Cancelled && f.Kind != Spec {
			before[key(f)] = f
		}
	}
	var worse []Finding
	for _, f := range now.Failed() {
		if b, ok := before[key(f)]; !ok || failsElsewhere(b, f) {
			worse = append(worse, f)
		}
	}
	return worse
}

// failsElsewhere reports whether now failed at an address where before did not.
func failsElsewhere(before, now Finding) bool {
	return len(before.Addresses) > 0 &&
		slices.ContainsFunc(now.Addresses, func(a string) bool { return !slices.Contains(before.Addresses, a) })
}

// Environment reports whether now failed only for reasons that were there
// before the switch: something failed, and nothing is Worse. What was switched
// to is then not to blame, and not verified either. The caller knows whether
// there was an OLDROOT that baseline looked at; without one there is no
// baseline, and its zero value makes this false.
func Environment(baseline, now Report) bool {
	return len(now.Failed()) > 0 && len(Worse(baseline, now)) == 0
}
