package wire

import (
	"bytes"
	"errors"
	"testing"
)

func TestFetchFormat(t *testing.T) {
	q := FetchRequest{Digest: sample().Digest, Offset: 1 << 40, ID: 7, Lane: 3, Lanes: 8}
	b := golden(t, "fetch-request.json", append(q.Encode(), '\n'))
	if got, err := DecodeFetch(b); err != nil || got != q {
		t.Errorf("DecodeFetch = %+v, %v, want %+v", got, err, q)
	}
	if FetchChannelType != "fetch@deploytools" || FetchUnit != 32704 {
		t.Errorf("type %q, unit %d: others rely on them", FetchChannelType, FetchUnit)
	}
}

func TestDecodeFetchRefuses(t *testing.T) {
	good := FetchRequest{Digest: sample().Digest, Lanes: 8}
	with := func(change func(*FetchRequest)) []byte {
		q := good
		change(&q)
		return q.Encode()
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "null": []byte("null"), "cut off": good.Encode()[:40],
		"no digest":       with(func(q *FetchRequest) { q.Digest = [32]byte{} }),
		"negative offset": with(func(q *FetchRequest) { q.Offset = -1 }),
		"no lanes":        with(func(q *FetchRequest) { q.Lanes = 0 }),
		"many lanes":      with(func(q *FetchRequest) { q.Lanes = MaxFetchLanes + 1 }),
		"no such lane":    with(func(q *FetchRequest) { q.Lane = 8 }),
		"negative lane":   with(func(q *FetchRequest) { q.Lane = -1 }),
		"too long":        append(good.Encode(), bytes.Repeat([]byte(" "), maxFetchBytes)...),
	} {
		if q, err := DecodeFetch(b); !errors.Is(err, ErrFetch) {
			t.Errorf("%s: DecodeFetch = %+v, %v, want ErrFetch", name, q, err)
		}
	}
}
