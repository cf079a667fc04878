package wire

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"deploytools/layers/digest"
)

func samplePoll() (PollRequest, PollReply) {
	return PollRequest{Names: []string{"project1", "nope"}}, PollReply{Configurations: []PollState{
		{Name: "project1", Revision: 7, Digest: sample().Digest}, {Name: "nope"},
	}}
}

func payload[T PollRequest | PollReply](t testing.TB, v T) []byte {
	t.Helper()
	b, err := EncodePoll(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPollFormat(t *testing.T) {
	q, r := samplePoll()
	b := golden(t, "poll-request.json", append(payload(t, q), '\n'))
	if got, err := DecodePollRequest(b); err != nil || !reflect.DeepEqual(got, q) {
		t.Errorf("DecodePollRequest = %+v, %v, want %+v", got, err, q)
	}
	b = golden(t, "poll-reply.json", append(payload(t, r), '\n'))
	if got, err := DecodePollReply(b, q); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("DecodePollReply = %+v, %v, want %+v", got, err, r)
	}
	if PollRequestType != "poll@deploytools" {
		t.Errorf("PollRequestType = %q", PollRequestType)
	}
}

// A hold is a field more: who does not know it reads the rest as ever.
func TestHoldFormat(t *testing.T) {
	q := PollRequest{Names: []string{"project1", "project2"}}
	r := PollReply{Configurations: []PollState{
		{Name: "project1", Revision: 7, Digest: sample().Digest, Hold: &Hold{"sale until Monday, ask <ann>", time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)}},
		{Name: "project2", Revision: 1, Digest: sample().Digest, Hold: &Hold{Reason: "database migration"}},
	}}
	b := golden(t, "poll-held.json", append(payload(t, r), '\n'))
	if got, err := DecodePollReply(b, q); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("DecodePollReply = %+v, %v, want %+v", got, err, r)
	}
	c := sample()
	c.Hold = r.Configurations[0].Hold
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeConfiguration(b); err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("DecodeConfiguration = %+v, %v, want %+v", got, err, c)
	}
}

// What reports have added is a field more, in the request and in the answer.
func TestReportedFormat(t *testing.T) {
	q := PollRequest{Names: []string{"project1", "project2"}, Instance: "3f9c2ab471d04e58"}
	b := golden(t, "poll-instance.json", append(payload(t, q), '\n'))
	if got, err := DecodePollRequest(b); err != nil || !reflect.DeepEqual(got, q) {
		t.Errorf("DecodePollRequest = %+v, %v, want %+v", got, err, q)
	}
	tag, none := "5d0c31aa7e92bf46", ""
	r := PollReply{Configurations: []PollState{
		{Name: "project1", Revision: 7, Digest: sample().Digest, Reported: &tag},
		{Name: "project2", Revision: 1, Digest: sample().Digest, Reported: &none},
	}}
	b = golden(t, "poll-reported.json", append(payload(t, r), '\n'))
	if got, err := DecodePollReply(b, q); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("DecodePollReply = %+v, %v, want %+v", got, err, r)
	}
}

func TestDecodePollRequestRefuses(t *testing.T) {
	names := func(n int) PollRequest { return PollRequest{Names: slices.Repeat([]string{"web"}, n)} }
	for name, b := range map[string][]byte{
		"nothing": nil, "null": []byte("null"), "no object": []byte("7"), "cut off": []byte(`{"Names":["a"`), "no names": []byte(`{}`),
		"wrong type": []byte(`{"Names":"a"}`), "empty name": []byte(`{"Names":["a",""]}`), "path": []byte(`{"Names":["../a"]}`),
		"control character": []byte(`{"Names":["a\u001b"]}`), "too many": payload(t, names(MaxPollNames+1)),
		"long instance":         payload(t, PollRequest{[]string{"a"}, strings.Repeat("i", MaxInstance+1)}),
		"instance with a space": payload(t, PollRequest{[]string{"a"}, "a b"}), "instance with a slash": payload(t, PollRequest{[]string{"a"}, "a/b"}),
		"too long": append(payload(t, names(1)), bytes.Repeat([]byte(" "), MaxPollBytes)...),
	} {
		if q, err := DecodePollRequest(b); !errors.Is(err, ErrPoll) {
			t.Errorf("%s: DecodePollRequest = %+v, %v, want ErrPoll", name, q, err)
		}
	}
	for _, n := range []int{1, MaxPollNames} {
		if _, err := DecodePollRequest(payload(t, names(n))); err != nil {
			t.Errorf("%d names: DecodePollRequest = %v", n, err)
		}
	}
}

// Limits fit together: the most names, and the answer to them, are not too long.
func TestLongestPoll(t *testing.T) {
	for _, reason := range []string{`"`, "<", "é"} {
		q := PollRequest{Instance: strings.Repeat("i", MaxInstance)}
		var r PollReply
		tag := strings.Repeat("t", MaxTag)
		hold := Hold{strings.Repeat(reason, MaxReason/len(reason)), time.Date(2026, 11, 21, 18, 47, 41, 123456789, time.UTC)}
		for range MaxPollNames {
			name := strings.Repeat("n", MaxName)
			q.Names = append(q.Names, name)
			r.Configurations = append(r.Configurations, PollState{name, 1<<64 - 1, digest.Of(nil), &hold, &tag})
		}
		if _, err := DecodePollRequest(payload(t, q)); err != nil {
			t.Errorf("DecodePollRequest = %v", err)
		}
		if _, err := DecodePollReply(payload(t, r), q); err != nil {
			t.Errorf("%s: DecodePollReply = %v", reason, err)
		}
	}
}

func TestDecodePollReplyRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*PollReply)
	}{
		{"too few", func(r *PollReply) { r.Configurations = r.Configurations[:1] }},
		{"too many", func(r *PollReply) { r.Configurations = append(r.Configurations, PollState{Name: "nope"}) }},
		{"another name", func(r *PollReply) { r.Configurations[1].Name = "other" }},
		{"another order", func(r *PollReply) { slices.Reverse(r.Configurations) }},
		{"revision without digest", func(r *PollReply) { r.Configurations[1].Revision = 1 }},
		{"digest without revision", func(r *PollReply) { r.Configurations[0].Revision = 0 }},
	} {
		q, r := samplePoll()
		test.change(&r)
		if got, err := DecodePollReply(payload(t, r), q); !errors.Is(err, ErrPoll) {
			t.Errorf("%s: DecodePollReply = %+v, %v, want ErrPoll", test.name, got, err)
		}
	}
	q, r := samplePoll()
	for name, b := range map[string][]byte{
		"nothing": nil, "null": []byte("null"), "cut off": payload(t, r)[:20], "short digest": bytes.Replace(payload(t, r), []byte(`"d2`), []byte(`"`), 1),
		"too long": append(payload(t, r), bytes.Repeat([]byte(" "), MaxPollBytes)...),
	} {
		if got, err := DecodePollReply(b, q); !errors.Is(err, ErrPoll) {
			t.Errorf("%s: DecodePollReply = %+v, %v, want ErrPoll", name, got, err)
		}
	}
}

func FuzzDecodePollRequest(f *testing.F) {
	q, _ := samplePoll()
	f.Add(payload(f, q))
	f.Add([]byte(`{"Names":["a"],"More":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := DecodePollRequest(b)
		if err != nil {
			if !errors.Is(err, ErrPoll) {
				t.Errorf("DecodePollRequest(%q) = %v, not an ErrPoll", b, err)
			}
			return
		}
		if again, err := DecodePollRequest(payload(t, q)); err != nil || !reflect.DeepEqual(again, q) {
			t.Errorf("DecodePollRequest(%q) = %+v, again: %+v, %v", b, q, again, err)
		}
	})
}

func FuzzDecodePollReply(f *testing.F) {
	q, r := samplePoll()
	f.Add(payload(f, r))
	f.Add([]byte(`{"Configurations":[{"Name":"project1"},{"Name":"nope"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodePollReply(b, q)
		if err != nil {
			if !errors.Is(err, ErrPoll) {
				t.Errorf("DecodePollReply(%q) = %v, not an ErrPoll", b, err)
			}
			return
		}
		if again, err := DecodePollReply(payload(t, r), q); err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("DecodePollReply(%q) = %+v, again: %+v, %v", b, r, again, err)
		}
	})
}
