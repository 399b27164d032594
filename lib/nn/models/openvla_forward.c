/* openvla_forward.c - the model: two vision towers, projector, Llama. Everything else is built from these steps.
 *
 * A sequence is <s>, the patches of its images, the rest of its ids; sequences are packed one behind the other
 * (openvla_rows.h). */
#include <errno.h>

#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_rows.h"

static const float vit_eps = 1e-6f;     /* timm's LayerNorm in both towers */

/* n sequences of equal length. */
static struct spans equal_spans(struct tape *tape, int n, int length)
{
    int32_t *start = tape_alloc(tape, ((size_t)n + 1) * sizeof(*start));

    for (int i = 0; start && i <= n; i++)
        start[i] = i * length;
    return (struct spans) {.n = n, .start = start};
}

struct vit_call { const struct vit_block *block; struct spans spans; int heads; struct tensor *words; };

static struct tensor *vit_block(struct tape *tape, struct tensor *x, const void *arg)
{
    const struct vit_call *call = arg;
    const struct vit_block *b = call->block;
    const struct tensor *before = x;
    size_t mark = tape_mark(tape);
    struct tensor *h;

    h = op_layernorm(tape, x, b->norm1.weight, b->norm1.bias, vit_eps);
    h = op_linear(tape, h, b->qkv.weight, b->qkv.bias);
    h = op_attention_qkv(tape, h, call->spans, call->heads, ATTENTION_FULL);
    h = op_linear(tape, h, b->proj.weight, b->proj.bias);
    x = op_add_to(tape, x, h, b->scale1);
    if (call->words)
        x = op_film(tape, x, op_linear(tape, call->words, b->gamma.weight, b->gamma.bias),
                    op_linear(tape, call->words, b->beta.weight, b->beta.bias), call->spans.n);

    h = op_layernorm(tape, x, b->norm2.weight, b->norm2.bias, vit_eps);
    h = op_linear(tape, h, b->fc1.weight, b->fc1.bias);
    h = op_gelu(tape, h);
    h = op_linear(tape, h, b->fc2.weight, b->fc2.bias);
    return tape_keep_block(tape, mark, before, op_add_to(tape, x, h, b->scale2));
}

/* (n*patches, dim): the output of the last block but one, prefix tokens dropped, no final norm. */
static struct tensor *vit_forward(const struct openvla *model, struct tape *tape, const struct pictures *pictures,
                                  struct tensor *words, int which)
{
    const struct openvla_config *c = &model->config;
    const struct openvla_tower *tower = &c->tower[which];
    const struct vit *vit = &model->w->vit[which];
    int n = pictures->b;
    struct spans spans = equal_spans(tape, n, tower->prefix + c->patches);
    size_t mark = tape_mark(tape);
    struct tensor *x;

    if (!spans.start)
        return NULL;
    x = op_patches(tape, pictures, model->lut[3 * which]);
    x = op_linear(tape, x, vit->patch.weight, vit->patch.bias);
    x = op_every_patch(tape, x, pictures);
    x = op_add_positions(tape, x, vit->position, n);
    if (tower->prefix)
        x = op_prepend(tape, x, vit->cls, vit->reg, n);
    for (int i = 0; i < tower->depth - 1; i++)
        x = tape_block(tape, x, vit_block, &(struct vit_call) {&vit->blocks[i], spans, tower->heads, words},
                       sizeof(struct vit_call));
    return tape_keep(tape, mark, tower->prefix ? op_strip(tape, x, n, tower->prefix) : x);
}

struct vision_pass openvla_vision(const struct openvla *model, struct tape *tape, const uint8_t *const *images, int n,
                                  struct tensor *words)
{
    const struct openvla_config *c = &model->config;
    const struct affine *fc = model->w->projector;
    struct pictures pictures[2];
    struct vision_pass pass;
    struct tensor *h;
    size_t mark;

    for (int i = 0; i < 2; i++) {
        pictures[i] = (struct pictures) {.images = images, .b = n, .height = c->image_height, .width = c->image_width,
                                         .patch = c->tower[i].patch};
        if (i && c->tower[0].patch == c->tower[1].patch)
            pictures[1] = pictures[0];
        else if (pictures_look(tape, &pictures[i]) < 0)
            return (struct vision_pass) {0};
    }
    pass.dino = vit_forward(model, tape, &pictures[0], words, 0);
    pass.siglip = vit_forward(model, tape, &pictures[1], words, 1);
    mark = tape_mark(tape);
    h = op_concat(tape, pass.dino, pass.siglip);
    h = op_gelu(tape, op_linear(tape, h, fc[0].weight, fc[0].bias));
    h = op_gelu(tape, op_linear(tape, h, fc[1].weight, fc[1].bias));
    pass.projector = tape_keep(tape, mark, op_linear(tape, h, fc[2].weight, fc[2].bias));
    return pass;
}

static struct tensor *feed(struct tape *tape, struct tensor *h, const struct llama_layer *l)
{
    struct tensor *both[2];

    if (!op_linears(tape, h, (const struct linear_use[]) {{l->up, NULL}, {l->gate, NULL}}, 2, both))
        return NULL;
    return op_linear(tape, op_swiglu(tape, both[1], both[0]), l->down, NULL);
}

/* Of x + what the attention of the layer says. */
static struct tensor *llama_mlp(const struct openvla *model, struct tape *tape, struct tensor *x, struct tensor *attention,
                                const struct llama_layer *l)
{
    struct tensor *h = op_residual_rmsnorm(tape, x, attention, l->norm2, model->config.rms_eps, &x);

    return op_residual(tape, x, feed(tape, h, l), NULL);
}

struct layer_call { const struct openvla *model; int layer; struct llama_rows rows; };

/* What the attention of a layer says of h, the norm of x. Of a tail, x becomes its rows. */
static struct tensor *llama_attention(struct tape *tape, struct tensor *h, const struct layer_call *call, struct tensor **x)
{
    const struct openvla *model = call->model;
    const struct openvla_config *c = &model->config;
    const struct llama_layer *l = &model->w->layers[call->layer];
    const struct llama_rows *rows = &call->rows;
    struct kv_cache *cache = rows->cache ? &rows->cache[call->layer] : NULL;
    bool tail = call->layer == c->layers - 1 && rows->tail;
    bool at_once = cache && !rows->keys && !tail;       /* all rows ask, and are what the cache gets */
    struct tensor *q, *k, *v, *kvq[3];

    if (!op_linears(tape, h, (const struct linear_use[]) {{l->k, NULL}, {l->v, NULL}, {l->q, NULL}}, tail ? 2 : 3, kvq))
        return NULL;
    if (at_once && op_rope_append(tape, cache, kvq[2], kvq[0], kvq[1], rows->slot, rows->position, c->heads, c->rope_theta) < 0)
        return NULL;
    k = at_once ? kvq[0] : op_rope(tape, kvq[0], rows->position, c->heads, c->rope_theta);
    v = kvq[1];
    if (rows->keys) {
        k = op_gather(tape, k, rows->keys, rows->spans.start[rows->spans.n]);
        v = op_gather(tape, v, rows->keys, rows->spans.start[rows->spans.n]);
    }
    if (cache && !at_once && op_kv_append(tape, cache, k, v, rows->slot, rows->position) < 0)
        return NULL;
    if (tail) {
        int n = rows->tail_spans.start[rows->tail_spans.n];

        q = op_linear(tape, op_gather(tape, h, rows->tail, n), l->q, NULL);
        q = op_rope(tape, q, rows->tail_position, c->heads, c->rope_theta);
        h = op_attention_tail(tape, q, k, v, rows->spans, rows->tail_spans, c->heads);
        *x = op_gather(tape, *x, rows->tail, n);
    } else {
        q = at_once ? kvq[2] : op_rope(tape, kvq[2], rows->position, c->heads, c->rope_theta);
        h = rows->bidirectional ? op_attention(tape, q, k, v, rows->spans, c->heads, ATTENTION_FULL)
                                : op_attention_tail(tape, q, k, v, rows->spans, rows->own, c->heads);
    }
    return op_linear(tape, h, l->o, NULL);
}

static struct tensor *llama_layer(struct tape *tape, struct tensor *x, const void *arg)
{
    const struct layer_call *call = arg;
    const struct openvla *model = call->model;
    const struct llama_layer *l = &model->w->layers[call->layer];
    size_t mark = tape_mark(tape);
    struct tensor *attention = llama_attention(tape, op_rmsnorm(tape, x, l->norm1, model->config.rms_eps), call, &x);

    return tape_keep(tape, mark, llama_mlp(model, tape, x, attention, l));
}

/* The layer on a device where nobody goes back: x and h, its norm, are written anew, and what else it makes is forgotten without
 * a copy. next: the weight of the norm that comes after it. Bits are those of llama_layer. */
static bool llama_layer_in_place(struct tape *tape, struct tensor **x, struct tensor **h, const struct layer_call *call,
                                 const struct param *next)
{
    const struct openvla *model = call->model;
    const struct llama_layer *l = &model->w->layers[call->layer];
    float eps = model->config.rms_eps;
    size_t mark = tape_mark(tape);
    struct tensor *before = *x, *attention = llama_attention(tape, *h, call, x);

    if (*x && *x != before)             /* fewer rows than there were: the last layer's tail */
        *h = tape_tensor(tape, (*x)->rows, (*x)->cols);
    if (op_add_rmsnorm(tape, *x, attention, l->norm2, eps, *h) < 0 ||
        op_add_rmsnorm(tape, *x, feed(tape, *h, l), next, eps, *h) < 0)
        return false;
    if (*x == before)
        tape_forget(tape, mark);
    return true;
}

struct tensor *openvla_llama(const struct openvla *model, struct tape *tape, struct tensor *x, const struct llama_rows *rows,
                             struct tensor **layer)
{
    const struct llama_layer *layers = model->w->layers;
    bool in_place = tape->on && !tape->training && !layer && x;
    struct tensor *h = in_place ? op_rmsnorm(tape, x, layers[0].norm1, model->config.rms_eps) : NULL;

    if (layer)
        layer[0] = x;
    for (int i = 0; i < model->config.layers; i++) {
        const struct param *next = i + 1 < model->config.layers ? layers[i + 1].norm1 : model->w->norm;
        struct layer_call call = {model, i, *rows};

        if (in_place && !llama_layer_in_place(tape, &x, &h, &call, next))
            return NULL;
        if (!in_place)
            x = tape_block(tape, x, llama_layer, &call, sizeof(call));
        if (layer)
            layer[i + 1] = x;
    }
    return in_place ? h : op_rmsnorm(tape, x, model->w->norm, model->config.rms_eps);
}

/* x and h, its norm, are written anew by every layer; what else a layer makes is forgotten. */
struct tensor *openvla_llama_step(const struct openvla *model, struct tape *tape, struct tensor *x, const int32_t *slot,
                                  const int32_t *position, struct kv_cache *cache)
{
    const struct openvla_config *c = &model->config;
    const struct llama_layer *layers = model->w->layers;
    struct tensor *h = op_rmsnorm(tape, x, layers[0].norm1, c->rms_eps);

    for (int i = 0; i < c->layers; i++) {
        const struct llama_layer *l = &layers[i];
        const struct param *next = i + 1 < c->layers ? layers[i + 1].norm1 : model->w->norm;
        size_t mark = tape_mark(tape);
        struct tensor *attention, *kvq[3];

        if (!op_linears(tape, h, (const struct linear_use[]) {{l->k, NULL}, {l->v, NULL}, {l->q, NULL}}, 3, kvq) ||
            op_rope_append(tape, &cache[i], kvq[2], kvq[0], kvq[1], slot, position, c->heads, c->rope_theta) < 0)
            return NULL;
        attention = op_linear(tape, op_attention_decode(tape, kvq[2], &cache[i], slot, position, c->heads), l->o, NULL);
        if (op_add_rmsnorm(tape, x, attention, l->norm2, c->rms_eps, h) < 0 ||
            op_add_rmsnorm(tape, x, feed(tape, h, l), next, c->rms_eps, h) < 0)
            return NULL;
        tape_forget(tape, mark);
    }
    return h;
}

/* (images, hidden): the mean of the words that are said beside each picture. Its gradient comes from inside blocks that are
 * computed twice, so there must be room for it before them. */
static struct tensor *picture_words(const struct openvla *model, struct tape *tape, const struct openvla_rows *l, int n)
{
    struct tensor *x = op_embedding(tape, model->w->embedding, l->words, l->word_start[n]);

    x = op_gather(tape, op_span_means(tape, x, (struct spans) {n, l->word_start}), l->image_item, l->images);
    if (x && tape->training && !tape->planning)
        (void)tape_gradient(tape, x);
    return x;
}

static int forward(const struct openvla *model, struct tape *tape, const struct openvla_item *items, int n,
                   struct kv_cache *cache, bool tail, struct openvla_pass *ret)
{
    struct openvla_pass pass = {0};
    struct vision_pass vision;
    struct openvla_rows l;
    struct llama_rows rows;
    struct tensor *x, *words;
    int r;

    pass.layer = tail ? NULL : tape_alloc(tape, ((size_t)model->config.layers + 1) * sizeof(*pass.layer));
    if (!tail && !pass.layer)
        return tape->error;
    tail = tail && items[0].slots == 0;         /* an earlier row sees the later ones too: none may be left out */
    r = openvla_rows_make(model, tape, items, n, tail && !cache && !tape->training, &l);
    if (r < 0)
        return r;
    words = model->config.oft.film ? picture_words(model, tape, &l, n) : NULL;
    if (model->config.oft.film && !words)
        return tape->error ? tape->error : -EINVAL;
    vision = openvla_vision(model, tape, l.image, l.images, words);
    x = op_embedding(tape, model->w->embedding, l.ids, l.text);
    x = op_splice(tape, x, vision.projector, l.splice, l.rows);
    if (l.states)
        x = op_splice(tape, x, oft_state_tokens(model, tape, l.state, l.states), l.state_splice, l.rows);
    rows = (struct llama_rows){
        .spans = {l.sequences, l.start},
        .own = {l.sequences, l.own},
        .keys = l.shared ? l.keys : NULL,
        .position = l.position,
        .cache = cache,
        .slot = l.slot,
        .bidirectional = items[0].slots > 0,
        .tail = tail ? l.tail : NULL,
        .tail_spans = {l.sequences, l.tail_start},
        .tail_position = l.tail_position,
    };
    pass.hidden = openvla_llama(model, tape, x, &rows, pass.layer);
    pass.spans = (struct spans) {n, tail ? l.tail_start + l.shared : l.start};
    pass.first = tail ? l.tail_first : l.first;
    pass.dino = vision.dino;
    pass.siglip = vision.siglip;
    pass.projector = vision.projector;
    if (!pass.hidden)
        return tape->error ? tape->error : -EINVAL;
    *ret = pass;
    return 0;
}

int openvla_forward(const struct openvla *model, struct tape *tape, const struct openvla_item *items, int n,
                    struct openvla_pass *ret)
{
    return forward(model, tape, items, n, NULL, false, ret);
}

int openvla_forward_tail(const struct openvla *model, struct tape *tape, const struct openvla_item *items, int n,
                         struct openvla_pass *ret)
{
    return forward(model, tape, items, n, NULL, true, ret);
}

int openvla_forward_cached(const struct openvla *model, struct tape *tape, const struct openvla_item *items, int n,
                           struct kv_cache *cache, struct openvla_pass *ret)
{
    return forward(model, tape, items, n, cache, true, ret);
}
