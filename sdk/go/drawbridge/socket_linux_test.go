package drawbridge

import "testing"

func TestAPeerOfAnotherUserIsRefusedAndRootIsNot(t *testing.T) {
	for _, peer := range []struct {
		user, own int
		allowed   bool
	}{{1000, 1000, true}, {0, 1000, true}, {1001, 1000, false}, {1000, 0, false}, {-1, 1000, false}} {
		if isPeerAllowed(peer.user, peer.own) != peer.allowed {
			t.Errorf("%+v", peer)
		}
	}
}

func TestACertificateIsRefusedBesideAUnixSocket(t *testing.T) {
	config := DefaultConfig()
	config.Listen = "unix:/run/x.sock"
	config.MTLS = MTLSConfig{
		CertificateFile: "a", KeyFile: "b", TrustBundleFile: "c", Allow: []string{"spiffe://a/b"},
	}
	if err := config.check(); err == nil {
		t.Fatal("accepted")
	}
}
