// Package agent keeps one configuration on one host: it fetches what the
// registry has, unpacks it into a fresh root, moves the link `current`, runs the
// host's hook, looks whether that serves, and takes it back when it does not.
//
// # The machine
//
// An [Agent] is a state machine; the table in machine.go is all of it, and
// docs/state-machine.md is drawn from it. One step at a time runs; its end takes
// an arrow; taking an arrow is one durable write of the [Record]. Steps can be
// run again after a crash at any point. What a step's error means is decided in
// one place (see advance): transient errors stay in the state and back off,
// definite ones take the failed arrow.
//
// # Directory
//
//	lock                           held while Run runs
//	journal.json                   the record: the truth, together with readlink(current)
//	control.sock                   where the program around an agent answers; see cmd/internal/control
//	current -> roots/000042-1f3a9c77d2e0
//	roots/000042-1f3a9c77d2e0/     a complete tree; .json (a Root) and .manifest beside it, and .pin if a person made it
//	cache/DIGEST                   layers; compared with their digest at each use
//	deployments/ID/                evidence: evidence.json and the hook's files
//	.back, .reserve                the link to return by, and room to write the record then
//
// Names in roots/ that start with a dot are trees half made or half deleted. A
// directory unpacked/ of the original tool set is read once and never deleted.
//
// # Durability
//
// Of journal.json and `current` together, every combination that a kill or a
// power loss can leave leads to a defined state at the next start. Files derived
// from the record (the state file, evidence) are written after it and tried
// again; they never hold a deployment up.
//
// # Concurrency
//
// Run owns the machine. What takes long runs beside it, while it does what people
// want; at most one goroutine at a time calls the Source. The other methods are
// safe for concurrent use.
//
//	a, err := agent.New(agent.Options{Name: "web", Dir: "/var/lib/deploy-agent", Source: s})
//	err = a.Run(ctx)   // until ctx is done
package agent
