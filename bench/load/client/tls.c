/* OpenSSL. Without it (no WITH_TLS) the rest works, and an address on TLS is refused. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>

struct tls {
    SSL *ssl;
};

static SSL_CTX *context(void) {
    static SSL_CTX *made;
    if (made) return made;
    made = SSL_CTX_new(TLS_client_method());
    if (made == NULL) die("no TLS");
    SSL_CTX_set_verify(made, SSL_VERIFY_NONE, NULL); /* a load on loopback: who answers is known */
    SSL_CTX_set_mode(made, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_set_alpn_protos(made, (const unsigned char *)"\x02h2", 3) != 0) die("no ALPN");
    return made;
}

struct tls *tls_open(int fd, const char *host) {
    struct tls *tls = allocated(1, sizeof *tls);
    tls->ssl = SSL_new(context());
    if (tls->ssl == NULL || SSL_set_fd(tls->ssl, fd) != 1) die("no TLS");
    SSL_set_tlsext_host_name(tls->ssl, host);
    if (SSL_connect(tls->ssl) != 1) die("no handshake of TLS: %s", ERR_error_string(ERR_get_error(), NULL));
    const unsigned char *chosen;
    unsigned length;
    SSL_get0_alpn_selected(tls->ssl, &chosen, &length);
    if (length != 2 || memcmp(chosen, "h2", 2) != 0) die("the server does not choose h2");
    return tls;
}

static ssize_t result(struct tls *tls, int count) {
    if (count > 0) return count;
    int error = SSL_get_error(tls->ssl, count);
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EIO;
    return -1;
}

ssize_t tls_read(struct tls *tls, void *to, size_t room) {
    ERR_clear_error();
    return result(tls, SSL_read(tls->ssl, to, (int)room));
}

ssize_t tls_write(struct tls *tls, const void *from, size_t count) {
    ERR_clear_error();
    return result(tls, SSL_write(tls->ssl, from, (int)(count < 1 << 30 ? count : 1 << 30)));
}

#else

struct tls *tls_open(int fd, const char *host) {
    (void)fd;
    die("%s: this program was built without TLS (apt-get install libssl-dev)", host);
}

ssize_t tls_read(struct tls *tls, void *to, size_t room) {
    (void)tls, (void)to, (void)room;
    abort();
}

ssize_t tls_write(struct tls *tls, const void *from, size_t count) {
    (void)tls, (void)from, (void)count;
    abort();
}

#endif
