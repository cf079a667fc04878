package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"deploytools/layers/digest"
)

// PollRequestType is the name of the SSH global request by which an agent asks
// whether there is anything new (RFC 4254 section 4). Its payload is a
// PollRequest in JSON, the reply's a PollReply. A registry that refuses the
// request is of the original kind, or the agent's key may not see one of the
// names: read configs/NAME.json instead.
const PollRequestType = "poll@deploytools"

// Limits of a poll, on both sides.
const (
	MaxPollNames = 100
	MaxPollBytes = 64 << 10
)

// ErrPoll says that a poll's payload is not valid.
var ErrPoll = errors.New("not a valid poll")

// PollRequest asks for the newest revision of each of Names.
type PollRequest struct {
	Names    []string
	Instance string `json:",omitzero"` // as in a Report
}

// PollReply answers a PollRequest, in its order.
type PollReply struct {
	Configurations []PollState
}

// PollState is the newest revision of one configuration. Revision 0 says that
// the caller can see no configuration of this name.
type PollState struct {
	Name     string
	Revision uint64
	Digest   digest.Digest
	Hold     *Hold `json:",omitempty"` // deliveries are stopped
	// Reported is the Tag of the last report that the registry has of this agent
	// about the configuration, "" without one. Nil: it takes no reports.
	Reported *string `json:",omitempty"`
}

// MaxReason is how long the reason of a hold may be, in bytes, so that an answer
// about the most names fits.
const MaxReason = 120

// Hold says that the agents of a configuration should start nothing new. It is
// told only while it is in force, so that no clock of a host is asked.
type Hold struct {
	Reason string    // one line of text, by a person
	Until  time.Time `json:",omitzero"` // when it is to end by itself
}

// EncodePoll returns the payload of a request or a reply.
func EncodePoll[T PollRequest | PollReply](v T) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // which would make reasons six times as long
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// DecodePollRequest reads and checks the payload of a request.
func DecodePollRequest(b []byte) (PollRequest, error) {
	var r PollRequest
	if err := decodePoll(b, &r); err != nil {
		return r, err
	}
	if len(r.Names) == 0 || len(r.Names) > MaxPollNames {
		return r, fmt.Errorf("%d names, not 1 to %d: %w", len(r.Names), MaxPollNames, ErrPoll)
	}
	for _, n := range r.Names {
		if err := CheckName(n); err != nil {
			return r, fmt.Errorf("%w: %w", ErrPoll, err)
		}
	}
	if err := CheckInstance(r.Instance); err != nil {
		return r, fmt.Errorf("%w: %w", ErrPoll, err)
	}
	return r, nil
}

// DecodePollReply reads the payload of a reply to q and checks that it answers
// q, name by name.
func DecodePollReply(b []byte, q PollRequest) (PollReply, error) {
	var r PollReply
	if err := decodePoll(b, &r); err != nil {
		return r, err
	}
	if len(r.Configurations) != len(q.Names) {
		return r, fmt.Errorf("%d answers to %d names: %w", len(r.Configurations), len(q.Names), ErrPoll)
	}
	for i, c := range r.Configurations {
		if c.Name != q.Names[i] {
			return r, fmt.Errorf("answer about %q instead of %q: %w", c.Name, q.Names[i], ErrPoll)
		}
		if (c.Revision == 0) != c.Digest.IsZero() {
			return r, fmt.Errorf("configuration %q: revision %d does not go with digest %s: %w", c.Name, c.Revision, c.Digest, ErrPoll)
		}
	}
	return r, nil
}

func decodePoll(b []byte, v any) error {
	if len(b) > MaxPollBytes {
		return fmt.Errorf("%d bytes, more than %d: %w", len(b), MaxPollBytes, ErrPoll)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrPoll, err)
	}
	return nil
}
