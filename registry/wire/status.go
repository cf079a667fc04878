package wire

import "strconv"

// Status is the exit status of a command: one table for every program, for
// the console and for `ssh host COMMAND`. 255 and above 125 are left to ssh
// and to the shell.
type Status int

// The statuses. What each one says of the world is in Statuses.
const (
	OK          Status = 0
	Failed      Status = 1
	Usage       Status = 2
	NotFound    Status = 3
	Conflict    Status = 4
	Denied      Status = 5
	GateRefused Status = 6
	Unreachable Status = 7
	Untrusted   Status = 8
	RolledBack  Status = 9
	Broken      Status = 10
	NotNow      Status = 75 // EX_TEMPFAIL of sysexits(3)
)

// Statuses lists every status in ascending order with its meaning, as help
// texts and documents show it.
var Statuses = []struct {
	Status  Status
	Meaning string
}{
	{OK, "done"},
	{Failed, "failed; nothing was changed unless the message says so"},
	{Usage, "the command line is wrong"},
	{NotFound, "what was named does not exist"},
	{Conflict, "it exists already, or has changed meanwhile"},
	{Denied, "your key may not do this"},
	{GateRefused, "a gate refused it"},
	{Unreachable, "the registry cannot be reached"},
	{Untrusted, "the registry's host key is not the known one, or it refuses your key"},
	{RolledBack, "the new version failed and the old one is back"},
	{Broken, "neither the new nor the old version works: a person must act"},
	{NotNow, "not now; try again later"},
}

// String returns the number in decimal.
func (s Status) String() string { return strconv.Itoa(int(s)) }
