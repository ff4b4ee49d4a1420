// A real OCI registry in memory (go-containerregistry's), for tests of policy bundles.
//
// It serves on a free port of loopback, which it prints. With -user NAME:PASSWORD every request
// needs a bearer token, which /token issues for that user (distribution specification, "Token
// Authentication").
package main

import (
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	user := flag.String("user", "", "NAME:PASSWORD")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if *user != "" {
		handler = authenticated(handler, *user, listener.Addr().String())
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, handler))
}

func authenticated(registry http.Handler, user, address string) http.Handler {
	name, password, _ := strings.Cut(user, ":")
	token := rand.Text()
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/token" {
			givenName, givenPassword, _ := request.BasicAuth()
			if givenName != name || givenPassword != password {
				http.Error(response, "wrong user", http.StatusUnauthorized)
				return
			}
			json.NewEncoder(response).Encode(map[string]string{"token": token})
			return
		}
		if request.Header.Get("Authorization") != "Bearer "+token {
			challenge := `Bearer realm="http://%s/token",service="test",scope="repository:any:pull,push"`
			response.Header().Set("WWW-Authenticate", fmt.Sprintf(challenge, address))
			http.Error(response, "no token", http.StatusUnauthorized)
			return
		}
		registry.ServeHTTP(response, request)
	})
}
