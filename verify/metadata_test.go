package verify

import (
	"errors"
	"testing"

	"deploytools/verify/spec"
)

// A check from the registry could read what a cloud hands out to the host, since
// a finding shows what was answered.
func TestNoCheckGoesWhereCredentialsAre(t *testing.T) {
	for _, c := range []spec.Check{
		{Type: spec.HTTP, URL: "http://169.254.169.254/latest/meta-data/", Body: "x"},
		{Type: spec.HTTP, URL: "http://[::ffff:169.254.169.254]/"},
		{Type: spec.HTTP, URL: "http://[fd00:ec2::254]/", JSON: "/Token", Equals: "x"},
		{Type: spec.HTTP, URL: "http://100.100.100.200/latest/"},
		{Type: spec.TCP, Addr: "169.254.170.2:80", Expect: "x"},
		{Type: spec.TLS, Addr: "169.254.169.254:443", Chain: true},
	} {
		if f := lookAt(t, c, Vars{}); f.Kind != Spec {
			t.Errorf("%s: %+v, want kind %q", c.Target(), f, Spec)
		}
	}
	for _, addr := range []string{"127.0.0.1:80", "[::1]:80", "100.100.100.201:80", "[fe80::1%lo]:80", "/run/x"} {
		if err := refuseCredentials(addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if _, err := connect(t.Context(), &place{network: "tcp", addr: "169.254.1.1:1"}); !errors.As(err, new(*failure)) {
		t.Errorf("connect: %v", err)
	}
}
