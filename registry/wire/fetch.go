package wire

import (
	"encoding/json"
	"errors"
	"fmt"

	"deploytools/layers/digest"
)

// FetchChannelType is the type of the SSH channels over which an agent fetches
// a layer (RFC 4254 section 5.1). What the opening carries is a FetchRequest in
// JSON. The registry accepts and sends the layer's bytes from Offset on, and then
// on lane 0 the request "exit-status" (RFC 4254 section 6.10): 0 says that this
// was all of them. The agent sends nothing.
//
// A channel moves at most its window each round trip. A fetch over several lanes
// opens as many channels, all with its ID; nothing is sent before the last has
// come. FetchUnit bytes go over lane 0, the next over lane 1, and so on in turn,
// so that bytes arrive in the order of the layer however many lanes there are:
// what a cut connection has delivered is all good but for one packet.
//
// An opening is refused with SSH_OPEN_CONNECT_FAILED where no layer that the
// key may read has the digest. A registry that does not know the type is of the
// original kind: read files/DIGEST instead.
const FetchChannelType = "fetch@deploytools"

const (
	// FetchUnit leaves room for the header in a packet of 32 KiB.
	FetchUnit = 32<<10 - 64
	// MaxFetchLanes is how many lanes a fetch may have.
	MaxFetchLanes = 8
	maxFetchBytes = 1 << 10
)

// ErrFetch says that the payload of a fetch is not valid.
var ErrFetch = errors.New("not a valid fetch")

// FetchRequest asks for one lane of a fetch.
type FetchRequest struct {
	Digest digest.Digest
	Offset int64
	ID     uint64 // the same on each lane of a fetch, and on no other of the connection
	Lane   int    // from 0
	Lanes  int
}

// Encode returns the payload.
func (r FetchRequest) Encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // of a struct of numbers
	}
	return b
}

// DecodeFetch reads and checks the payload.
func DecodeFetch(b []byte) (FetchRequest, error) {
	var r FetchRequest
	if len(b) > maxFetchBytes {
		return r, fmt.Errorf("%d bytes, more than %d: %w", len(b), maxFetchBytes, ErrFetch)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrFetch, err)
	}
	switch {
	case r.Digest.IsZero():
		return r, fmt.Errorf("names no layer: %w", ErrFetch)
	case r.Offset < 0:
		return r, fmt.Errorf("offset %d: %w", r.Offset, ErrFetch)
	case r.Lanes < 1 || r.Lanes > MaxFetchLanes || r.Lane < 0 || r.Lane >= r.Lanes:
		return r, fmt.Errorf("lane %d of %d, not of 1 to %d: %w", r.Lane, r.Lanes, MaxFetchLanes, ErrFetch)
	}
	return r, nil
}
