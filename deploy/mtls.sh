#!/usr/bin/env bash
# Issues certificates for services by openssl, to try a deployment: from an authority in FOLDER, which
# the first call creates, one for each SPIFFE id.
#
#   deploy/mtls.sh FOLDER spiffe://acme.example/edge spiffe://acme.example/auth …
#
# FOLDER/<last segment of the id>/ gets tls.crt, tls.key and ca.crt. They are valid for 30 days; call
# it again to renew them. In production use cert-manager or SPIRE (docs/how-to/mtls.md).
set -euo pipefail
umask 077

fail() {
  echo "mtls: $1" >&2
  exit 1
}

[[ $# -ge 2 ]] || fail "usage: deploy/mtls.sh FOLDER SPIFFE-ID…"
command -v openssl >/dev/null || fail "openssl is missing"
readonly folder=$1
shift
readonly curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
mkdir -p "$folder"
[[ -f $folder/ca.key ]] || openssl req -x509 "${curve[@]}" -days 365 -subj "/CN=drawbridge" \
  -addext basicConstraints=critical,CA:true,pathlen:0 -addext keyUsage=critical,keyCertSign \
  -keyout "$folder/ca.key" -out "$folder/ca.crt" 2>/dev/null || fail "openssl could not create an authority"
for id in "$@"; do
  [[ $id =~ ^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$ ]] || fail "invalid SPIFFE id $id: write spiffe://acme.example/edge"
  own=$folder/${id##*/}
  mkdir -p "$own"
  openssl req -x509 -CA "$folder/ca.crt" -CAkey "$folder/ca.key" "${curve[@]}" -days 30 -subj "/CN=${id##*/}" \
    -addext basicConstraints=critical,CA:false -addext keyUsage=critical,digitalSignature \
    -addext extendedKeyUsage=serverAuth,clientAuth -addext "subjectAltName=URI:$id" \
    -keyout "$own/tls.key" -out "$own/tls.crt" 2>/dev/null || fail "openssl could not issue a certificate for $id"
  cp "$folder/ca.crt" "$own/ca.crt"
done
