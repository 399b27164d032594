#include "sim/suites/libero/catalog.h"

#include <math.h>
#include <string.h>

#include "base/macro.h"

#define FRONT { 0.56, 0.43, 0.43, 0.56 }
#define GALLERY { "galleryview", { 2.844547668904445, 2.1279684793440667, 3.128616846013882 }, \
                  { 0.42261379957199097, 0.23374411463737488, 0.41646939516067505, 0.7702690958976746 } }
#define PAPER { 0.513, 0.353, 0.443, 0.645 }
#define TABLE_VIEW { 0.6380177736282349, 0.3048497438430786, 0.30484986305236816, 0.6380177736282349 }
#define LOW_VIEW { 0.6182166934013367, 0.3432307541370392, 0.3432314395904541, 0.6182177066802979 }

static const struct libero_arena arenas[] = {
    { .problem = "libero_tabletop_manipulation", .scene = "libero_tabletop_base_style", .workspace = "main_table", .body = "table",
      .floor = "light-gray-floor-tile.png", .wall = "light-gray-plaster.png", .offset = { 0, 0, 0.90 }, .site_z = 0.02,
      .mounted = true, .base = { -0.16 - 1.0 / 2, 0, 0 }, .fixture_z = 0.01 - 0.05, .shrink_regions = true,
      .table_half = { 0.5, 0.6, 0.025 }, .table_friction = "0.6 0.005 0.0001",
      .cameras = { { "agentview", { 0.6586131746834771, 0.0, 1.6103500240372423 }, TABLE_VIEW },
                   { "frontview", { 1.0, 0.0, 1.48 }, FRONT }, GALLERY } },
    { .problem = "libero_kitchen_tabletop_manipulation", .scene = "libero_kitchen_tabletop_base_style", .workspace = "kitchen_table",
      .body = "table", .floor = "gray_ceramic_tile.png", .wall = "yellow_linen_wall_texture.png", .offset = { 0, 0, 0.90 },
      .offset_sites = true, .site_z = 0.90 - 0.90, .mounted = true, .base = { -0.16 - 1.0 / 2, 0, 0 }, .fixture_z = 0.01 - 0.05,
      .table_half = { 0.5, 0.6, 0.025 }, .table_friction = "1 0.005 0.0001",
      .cameras = { { "agentview", { 0.6586131746834771, 0.0, 1.6103500240372423 }, TABLE_VIEW },
                   { "frontview", { 1.0, 0.0, 1.48 }, FRONT }, GALLERY, { "paperview", { 2.1, 0.535, 2.075 }, PAPER } } },
    { .problem = "libero_living_room_tabletop_manipulation", .scene = "libero_living_room_tabletop_base_style",
      .workspace = "living_room_table", .body = "living_room_table", .floor = "seamless_wood_planks_floor.png",
      .wall = "light-gray-plaster.png", .offset = { 0, 0, 0.41 }, .offset_sites = true, .site_z = 0.41,
      .base = { -0.16 - 0.70 / 2, 0, 0.42 }, .fixture_z = 0.01 - 0.024,
      .cameras = { { "agentview", { 0.6065773716836134, 0.0, 0.96 }, LOW_VIEW },
                   { "frontview", { 1.5, 0.0, 0.9 }, FRONT }, GALLERY, { "paperview", { 2.1, 0.735, 1.875 }, PAPER } } },
    { .problem = "libero_study_tabletop_manipulation", .scene = "libero_study_base_style", .workspace = "study_table",
      .body = "study_table", .floor = "light-gray-floor-tile.png", .wall = "light-gray-plaster.png", .offset = { -0.2, 0, 0.867 },
      .offset_sites = true, .site_z = 0.867, .mounted = true, .base = { -0.25 - 1.0 / 2, 0, 0 }, .fixture_z = 0.01 - 0.05,
      .cameras = { { "agentview", { 0.4586131746834771, 0.0, 1.6103500240372423 }, TABLE_VIEW },
                   { "frontview", { 1.0, 0.0, 1.48 }, FRONT }, GALLERY, { "paperview", { 2.1, 0.535, 2.075 }, PAPER } } },
    { .problem = "libero_floor_manipulation", .scene = "libero_floor_base_style", .workspace = "floor", .body = "floor",
      .floor = "light-gray-floor-tile.png", .wall = "light-gray-plaster.png", .offset = { 0, 0, -0.035 }, .site_z = 0.02,
      .base = { -0.6, 0, 0 }, .fixture_z = -0.025, .shrink_regions = true,
      .cameras = { { "agentview", { 0.8965773716836134, 5.216182733499864e-07, 0.65 }, LOW_VIEW },
                   { "frontview", { 1.0, 0.0, 0.65 }, FRONT }, GALLERY } },
};

const struct libero_arena *libero_arena(const char *problem)
{
    for (size_t i = 0; i < ARRAY_SIZE(arenas); i++)
        if (strcmp(arenas[i].problem, problem) == 0)
            return &arenas[i];
    return NULL;
}

#define ONE(axis, lo, hi) { .draws = 1, .about = axis, .range = { lo, hi } }
#define XZ { .draws = 2, .range = { M_PI_2, M_PI_2 } }        /* about x, then about z */

static const struct libero_category categories[] = {
    { .name = "alphabet_soup", .file = "stable_hope_objects/alphabet_soup/alphabet_soup", .rotation = ONE('z', M_PI_2, M_PI_2) },
    { .name = "bbq_sauce", .file = "stable_hope_objects/bbq_sauce/bbq_sauce", .rotation = ONE('x', M_PI_2, M_PI_2) },
    { .name = "butter", .file = "stable_hope_objects/butter/butter", .rotation = ONE('x', 0, 0) },
    { .name = "cherries", .file = "stable_hope_objects/cherries/cherries", .rotation = ONE('x', M_PI_2, M_PI_2) },
    { .name = "chocolate_pudding", .file = "stable_hope_objects/chocolate_pudding/chocolate_pudding", .rotation = ONE('x', 0, 0) },
    { .name = "cookies", .file = "stable_hope_objects/cookies/cookies", .rotation = ONE('x', M_PI_2, M_PI_2) },
    { .name = "corn", .file = "stable_hope_objects/corn/corn", .rotation = ONE('x', M_PI_2, M_PI_2) },
    { .name = "cream_cheese", .file = "stable_hope_objects/cream_cheese/cream_cheese", .rotation = ONE('x', 0, 0) },
    { .name = "ketchup", .file = "stable_hope_objects/ketchup/ketchup", .rotation = XZ },
    { .name = "macaroni_and_cheese", .file = "stable_hope_objects/macaroni_and_cheese/macaroni_and_cheese", .rotation = XZ },
    { .name = "mayo", .file = "stable_hope_objects/mayo/mayo", .rotation = XZ },
    { .name = "milk", .file = "stable_hope_objects/milk/milk", .rotation = XZ },
    { .name = "orange_juice", .file = "stable_hope_objects/orange_juice/orange_juice", .rotation = XZ },
    { .name = "popcorn", .file = "stable_hope_objects/popcorn/popcorn", .rotation = ONE('x', 0, 0) },
    { .name = "salad_dressing", .file = "stable_hope_objects/salad_dressing/salad_dressing", .rotation = XZ },
    { .name = "new_salad_dressing", .file = "stable_hope_objects/new_salad_dressing/new_salad_dressing", .rotation = XZ },
    { .name = "tomato_sauce", .file = "stable_hope_objects/tomato_sauce/tomato_sauce", .rotation = ONE('z', M_PI_2, M_PI_2) },
    { .name = "rack", .file = "stable_scanned_objects/simple_rack/simple_rack", .rotation = ONE('x', 0, 0) },
    { .name = "white_bowl", .file = "stable_scanned_objects/white_bowl/white_bowl", .rotation = ONE('x', M_PI_2, M_PI_2) },
    { .name = "akita_black_bowl", .file = "stable_scanned_objects/akita_black_bowl/akita_black_bowl", .rotation = ONE('x', M_PI_2, M_PI_2) },
    { .name = "plate", .file = "stable_scanned_objects/plate/plate", .rotation = ONE('x', M_PI_2, M_PI_2) },
    { .name = "basket", .file = "stable_scanned_objects/basket/basket", .rotation = ONE('x', M_PI_2, M_PI_2) },
    { .name = "chefmate_8_frypan", .file = "stable_scanned_objects/chefmate_8_frypan/chefmate_8_frypan", .rotation = ONE('x', M_PI_2, M_PI_2) },
    { .name = "glazed_rim_porcelain_ramekin", .file = "stable_scanned_objects/glazed_rim_porcelain_ramekin/glazed_rim_porcelain_ramekin", .rotation = ONE('x', M_PI_2, M_PI_2) },
    { .name = "microwave", .file = "articulated_objects/microwave", .rotation = ONE('x', M_PI_4, M_PI_2),
      .open = { -1, -1.3, false, {-2.094, -1.3} }, .close = { 1, -0.005, false, {-0.005, 0.0} } },
    { .name = "slide_cabinet", .file = "articulated_objects/slide_cabinet", .rotation = ONE('x', M_PI_4, M_PI_2) },
    { .name = "window", .file = "articulated_objects/window", .rotation = ONE('x', M_PI_4, M_PI_2) },
    { .name = "faucet", .file = "articulated_objects/faucet", .rotation = ONE('x', M_PI_4, M_PI_2) },
    { .name = "basin_faucet", .file = "articulated_objects/basin_faucet", .rotation = ONE('x', M_PI_4, M_PI_2) },
    { .name = "short_cabinet", .file = "articulated_objects/short_cabinet", .rotation = ONE('x', M_PI_4, M_PI_2),
      .open = { 1, 0.1, false, {0.1, 0.16} }, .close = { -1, 0.0, false, {-0.005, 0.0} } },
    { .name = "short_fridge", .file = "articulated_objects/short_fridge", .rotation = ONE('x', M_PI_4, M_PI_2),
      .open = { 1, 2.0, false, {2.0, 2.7} }, .close = { -1, 0.0, false, {-0.005, 0.0} } },
    { .name = "wooden_cabinet", .file = "articulated_objects/wooden_cabinet", .rotation = ONE('x', M_PI_4, M_PI_2),
      .open = { -1, -0.14, false, {-0.16, -0.14} }, .close = { 1, 0.0, false, {0.0, 0.005} } },
    { .name = "white_cabinet", .file = "articulated_objects/white_cabinet", .rotation = ONE('x', M_PI_4, M_PI_2),
      .open = { -1, -0.14, false, {-0.16, -0.14} }, .close = { 1, 0.0, false, {0.0, 0.005} } },
    { .name = "flat_stove", .file = "articulated_objects/flat_stove", .rotation = ONE('y', 0, 0),
      .turnon = { 1, 0.5, true, {0.5, 2.1} }, .turnoff = { -1, 0.0, false, {-0.005, 0.0} } },
    { .name = "wooden_tray", .file = "turbosquid_objects/wooden_tray/wooden_tray", .rotation = ONE('x', 0, 0) },
    { .name = "white_storage_box", .file = "turbosquid_objects/white_storage_box/white_storage_box", .rotation = ONE('y', 0, 0) },
    { .name = "wooden_shelf", .file = "turbosquid_objects/wooden_shelf/wooden_shelf", .rotation = ONE('x', 0, 0) },
    { .name = "wooden_two_layer_shelf", .file = "turbosquid_objects/wooden_two_layer_shelf/wooden_two_layer_shelf", .rotation = ONE('x', 0, 0) },
    { .name = "wine_rack", .file = "turbosquid_objects/wine_rack/wine_rack", .rotation = ONE('x', 0, 0) },
    { .name = "wine_bottle", .file = "turbosquid_objects/wine_bottle/wine_bottle", .rotation = ONE('x', 0, 0) },
    { .name = "dining_set_group", .file = "turbosquid_objects/dining_set_group/dining_set_group", .rotation = ONE('x', 0, 0) },
    { .name = "bowl_drainer", .file = "turbosquid_objects/bowl_drainer/bowl_drainer", .rotation = ONE('x', 0, 0) },
    { .name = "moka_pot", .file = "turbosquid_objects/moka_pot/moka_pot", .rotation = ONE('x', 0, 0) },
    { .name = "black_book", .file = "turbosquid_objects/black_book/black_book", .rotation = ONE('x', -M_PI_2, -M_PI_4) },
    { .name = "yellow_book", .file = "turbosquid_objects/yellow_book/yellow_book", .rotation = ONE('x', -M_PI_2, -M_PI_4) },
    { .name = "red_coffee_mug", .file = "turbosquid_objects/red_coffee_mug/red_coffee_mug", .rotation = ONE('x', -M_PI_2, -M_PI_2) },
    { .name = "desk_caddy", .file = "turbosquid_objects/desk_caddy/desk_caddy", .rotation = ONE('x', 0, 0) },
    { .name = "porcelain_mug", .file = "turbosquid_objects/porcelain_mug/porcelain_mug", .rotation = ONE('x', -M_PI_2, -M_PI_2) },
    { .name = "white_yellow_mug", .file = "turbosquid_objects/white_yellow_mug/white_yellow_mug", .rotation = ONE('x', -M_PI_2, -M_PI_2) },
};

const struct libero_category *libero_category(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(categories); i++)
        if (strcmp(categories[i].name, name) == 0)
            return &categories[i];
    return NULL;
}
