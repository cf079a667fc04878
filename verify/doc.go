// Package verify looks from outside whether what was deployed is what runs. It
// carries out the checks of package spec and says what it found.
//
//   - Once looks once: for a baseline before a switch, or a second opinion.
//   - Run looks again until every check passes or its time is over.
//   - Soak goes on looking for a while, to see that the checks go on passing.
//   - Worse and Environment compare what is found now with a baseline.
//
// A look at a name is one at each of its addresses, at the same time, and has one
// finding.
//
// A report without checks is not verified: a state of its own, neither failure
// nor success.
//
//	r := verify.Run(ctx, s, verify.Vars{NewRoot: dir, NewID: id})
//	if !r.OK { ... }         // something failed: r.Failed() says what
//	if !r.Verified { ... }   // never show this as success
//
// Every function is safe for concurrent use, keeps nothing between calls, logs
// nothing, and returns when its context ends; each single look ends at its own
// timeout besides. What a server or a program sent is in a Finding only with
// its control characters escaped.
//
// The specification must have been validated for its origin: exec checks run.
package verify
